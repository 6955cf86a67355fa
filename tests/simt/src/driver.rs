//! The driver whose card is the executor: a `libcuda.so` for programs that look for one.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::OnceLock;

use libloading::Library;

/// The file, in a folder of its own: a program finds it before others where `LD_LIBRARY_PATH` begins with that folder.
/// The error says what it lacked when this crate was compiled.
///
/// The card's properties come from the variable `SIMT_CARD`, such as `cards=2 multiprocessors=132`; `driver/driver.h` lists
/// them. How the driver was misused stands on standard error, in lines that begin with `libcuda: `.
pub fn driver() -> Result<&'static Path, String> {
    match env!("SIMT_DRIVER") {
        "" => Err(env!("SIMT_MISSING").into()),
        path => Ok(Path::new(path)),
    }
}

/// The driver in this process.
#[derive(Debug)]
pub struct Driver(Library);

impl Driver {
    /// Loads it: from here on whoever looks for a `libcuda.so` finds this one. The first call says what card it has.
    pub fn load(card: &str) -> Result<&'static Self, String> {
        static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
        let load = || {
            // SAFETY: the library was made by build.rs; what runs when it is loaded fills tables of its own.
            let driver = unsafe { Library::new(driver()?) }.map(Self).map_err(|error| error.to_string())?;
            let card = CString::new(card).expect("plain text");
            let choose: unsafe extern "C" fn(*const c_char) = driver.call("simt_driver_card");
            // SAFETY: the text is copied.
            unsafe { choose(card.as_ptr()) };
            Ok(driver)
        };
        DRIVER.get_or_init(load).as_ref().map_err(Clone::clone)
    }

    fn call<T: Copy>(&self, name: &str) -> T {
        // SAFETY: each name is asked for with its type, below.
        unsafe { *self.0.get::<T>(name).expect("it has the function") }
    }

    /// How often it was used in a way that it should not be.
    pub fn misuses(&self) -> usize {
        let misuses: unsafe extern "C" fn() -> c_int = self.call("simt_driver_misuses");
        // SAFETY: it reads a number.
        unsafe { misuses() as usize }
    }

    /// Contexts of a card that are alive.
    pub fn contexts(&self, card: usize) -> usize {
        let contexts: unsafe extern "C" fn(c_int) -> c_int = self.call("simt_driver_contexts");
        // SAFETY: it counts.
        unsafe { contexts(card as c_int) as usize }
    }

    /// Contexts that the calling thread has entered and not left.
    pub fn entered(&self) -> usize {
        let entered: unsafe extern "C" fn() -> usize = self.call("simt_driver_entered");
        // SAFETY: it reads a number.
        unsafe { entered() }
    }

    /// Launches that have run so far.
    pub fn launches(&self) -> usize {
        let launches: unsafe extern "C" fn() -> i64 = self.call("simt_driver_launches");
        // SAFETY: it reads a number.
        unsafe { launches() as usize }
    }

    /// Has the n-th launch from here on read where no memory is; 0 for none.
    pub fn fault(&self, number: usize) {
        let fault: unsafe extern "C" fn(i64) = self.call("simt_driver_fault");
        // SAFETY: it writes a number.
        unsafe { fault(number as i64) }
    }

    /// Another part of the program captures meanwhile on a thread of its own, in the mode that all threads feel.
    pub fn captured_by_another<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Ends it, also where work panics.
        struct Capture(unsafe extern "C" fn(c_int));
        impl Drop for Capture {
            fn drop(&mut self) {
                // SAFETY: it writes a number, and so below.
                unsafe { self.0(0) }
            }
        }
        let capture = Capture(self.call("simt_driver_capture_by_another"));
        unsafe { (capture.0)(1) };
        work()
    }

    /// Memory as another part of the program has it: of its own context, or of the card's pool.
    pub fn foreign(&self, bytes: usize, of_the_pool: bool) -> Foreign<'_> {
        Foreign::new(self, bytes, of_the_pool)
    }
}

/// Memory of a context that is not the program's, and a stream of that context; both are given back at last.
#[derive(Debug)]
pub struct Foreign<'a> {
    driver: &'a Driver,
    context: *mut c_void,
    stream: *mut c_void,
    address: u64,
    bytes: usize,
}

type Done = c_int;

impl<'a> Foreign<'a> {
    fn new(driver: &'a Driver, bytes: usize, of_the_pool: bool) -> Self {
        let init: unsafe extern "C" fn(u32) -> Done = driver.call("cuInit");
        let create: unsafe extern "C" fn(*mut *mut c_void, *mut c_void, u32, c_int) -> Done =
            driver.call("cuCtxCreate_v4");
        let alloc: unsafe extern "C" fn(*mut u64, usize) -> Done = driver.call("cuMemAlloc_v2");
        let of_pool: unsafe extern "C" fn(*mut u64, usize, *mut c_void) -> Done = driver.call("cuMemAllocAsync");
        let stream_create: unsafe extern "C" fn(*mut *mut c_void, u32) -> Done = driver.call("cuStreamCreate");
        let pop: unsafe extern "C" fn(*mut *mut c_void) -> Done = driver.call("cuCtxPopCurrent_v2");
        let (mut context, mut stream, mut address) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        // SAFETY: the driver writes three handles.
        unsafe {
            assert_eq!([init(0), create(&mut context, std::ptr::null_mut(), 0, 0)], [0; 2]);
            let made = match of_the_pool {
                true => of_pool(&mut address, bytes, std::ptr::null_mut()),
                false => alloc(&mut address, bytes),
            };
            assert_eq!([made, stream_create(&mut stream, 1), pop(&mut std::ptr::null_mut())], [0; 3]);
        }
        Self { driver, context, stream, address, bytes }
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn stream(&self) -> *mut c_void {
        self.stream
    }

    /// The stream captures what it is asked for meanwhile.
    pub fn capturing<T>(&self, work: impl FnOnce() -> T) -> T {
        let push: unsafe extern "C" fn(*mut c_void) -> Done = self.driver.call("cuCtxPushCurrent_v2");
        let begin: unsafe extern "C" fn(*mut c_void, c_int) -> Done = self.driver.call("cuStreamBeginCapture_v2");
        let end: unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> Done = self.driver.call("cuStreamEndCapture");
        let destroy: unsafe extern "C" fn(*mut c_void) -> Done = self.driver.call("cuGraphDestroy");
        let pop: unsafe extern "C" fn(*mut *mut c_void) -> Done = self.driver.call("cuCtxPopCurrent_v2");
        const THREAD_LOCAL: c_int = 1;
        // SAFETY: context and stream live, and so below.
        assert_eq!(unsafe { [push(self.context), begin(self.stream, THREAD_LOCAL)] }, [0; 2]);
        let done = work();
        let mut graph = std::ptr::null_mut();
        unsafe { assert_eq!([end(self.stream, &mut graph), destroy(graph), pop(&mut std::ptr::null_mut())], [0; 3]) };
        done
    }

    /// What is there when all that the stream was asked for is done.
    pub fn read(&self) -> Vec<u8> {
        let push: unsafe extern "C" fn(*mut c_void) -> Done = self.driver.call("cuCtxPushCurrent_v2");
        let synchronize: unsafe extern "C" fn(*mut c_void) -> Done = self.driver.call("cuStreamSynchronize");
        let pop: unsafe extern "C" fn(*mut *mut c_void) -> Done = self.driver.call("cuCtxPopCurrent_v2");
        // SAFETY: context and stream live.
        let done = unsafe { [push(self.context), synchronize(self.stream), pop(&mut std::ptr::null_mut())] };
        assert_eq!(done, [0; 3]);
        // SAFETY: the card's memory is the host's, and as long; launches of this context there are none.
        unsafe { std::slice::from_raw_parts(self.address as *const u8, self.bytes).to_vec() }
    }
}

impl Drop for Foreign<'_> {
    fn drop(&mut self) {
        let push: unsafe extern "C" fn(*mut c_void) -> Done = self.driver.call("cuCtxPushCurrent_v2");
        let free: unsafe extern "C" fn(u64) -> Done = self.driver.call("cuMemFree_v2");
        let stream_destroy: unsafe extern "C" fn(*mut c_void) -> Done = self.driver.call("cuStreamDestroy_v2");
        let pop: unsafe extern "C" fn(*mut *mut c_void) -> Done = self.driver.call("cuCtxPopCurrent_v2");
        let destroy: unsafe extern "C" fn(*mut c_void) -> Done = self.driver.call("cuCtxDestroy_v2");
        // SAFETY: all were made in `new`, and are given back once.
        let done = unsafe {
            let within = [push(self.context), free(self.address), stream_destroy(self.stream)];
            (within, [pop(&mut std::ptr::null_mut()), destroy(self.context)])
        };
        assert_eq!(done, ([0; 3], [0; 2]));
    }
}
