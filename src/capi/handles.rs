//! Handles: numbers that are looked up, so that a wrong one is an error rather than a crash.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::status::{Failure, Status};

/// All open handles of one kind.
pub struct Handles<T> {
    /// What they are called in errors.
    kind: &'static str,
    open: Mutex<BTreeMap<usize, Arc<T>>>,
}

/// Handles of all kinds are told apart, and none is used twice.
static NEXT: AtomicUsize = AtomicUsize::new(1);

impl<T> Handles<T> {
    pub const fn new(kind: &'static str) -> Self {
        Self { kind, open: Mutex::new(BTreeMap::new()) }
    }

    /// A handle for a thing, as the pointer that the caller gets.
    pub fn insert<P>(&self, thing: T) -> *mut P {
        // Steps of 16: what looks like a pointer to something aligned.
        let number = NEXT.fetch_add(1, Ordering::Relaxed) * 16;
        self.open().insert(number, Arc::new(thing));
        std::ptr::without_provenance_mut(number)
    }

    pub fn get<P>(&self, handle: *const P) -> Result<Arc<T>, Failure> {
        self.open().get(&handle.addr()).cloned().ok_or_else(|| self.wrong(handle))
    }

    pub fn remove<P>(&self, handle: *const P) -> Result<Arc<T>, Failure> {
        self.open().remove(&handle.addr()).ok_or_else(|| self.wrong(handle))
    }

    fn wrong<P>(&self, handle: *const P) -> Failure {
        let what = if handle.is_null() { "null" } else { "closed, or no handle" };
        Failure::new(Status::InvalidHandle, format!("{}: expected an open handle, found one that is {what}", self.kind))
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<T>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_good_until_it_is_closed() {
        static NUMBERS: Handles<u32> = Handles::new("number");
        let (a, b) = (NUMBERS.insert::<u8>(7), NUMBERS.insert::<u8>(8));
        assert_eq!((*NUMBERS.get(a).ok().unwrap(), *NUMBERS.get(b).ok().unwrap()), (7, 8));
        assert!(NUMBERS.remove(a).is_ok());
        let closed = NUMBERS.get(a).err().unwrap();
        assert_eq!(closed.status, Status::InvalidHandle);
        assert!(closed.text.contains("number") && closed.text.contains("closed"), "{}", closed.text);
        assert!(NUMBERS.remove(a).is_err() && NUMBERS.get(b).is_ok());
        assert!(NUMBERS.get(std::ptr::null::<u8>()).err().unwrap().text.contains("null"));
    }
}
