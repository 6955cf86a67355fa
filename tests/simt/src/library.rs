//! The shared objects, each loaded once and for good: their threads never end.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::slice;
use std::sync::{Mutex, OnceLock};

use crate::Build;

/// `simt::LaunchConfig` of `runtime/runtime.h`.
#[repr(C)]
pub struct Config {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub cooperative: u32,
    /// 0 forward, 1 reverse, 2 random
    pub order: u32,
    pub lazy_copies: u32,
    pub run_began: u32,
    pub seed: u64,
}

type Launch = unsafe extern "C" fn(*const c_char, *const Config, *mut *mut c_void, *mut c_char, usize) -> c_int;
type Describe = unsafe extern "C" fn(usize, *mut u32, *mut *const u32) -> *const c_char;

#[derive(Debug)]
pub struct Library {
    launch: Launch,
    alloc: unsafe extern "C" fn(usize) -> *mut u8,
    free: unsafe extern "C" fn(*mut u8),
    host_wrote: unsafe extern "C" fn(*mut u8, usize),
    now: unsafe extern "C" fn() -> u32,
    /// The runtime is for one caller at a time.
    turn: Mutex<()>,
    /// By name: the sizes of the parameters.
    pub kernels: Vec<(String, Vec<usize>)>,
}

impl Library {
    pub fn open(build: Build) -> Result<&'static Self, String> {
        static PLAIN: OnceLock<Result<Library, String>> = OnceLock::new();
        static CHECK: OnceLock<Result<Library, String>> = OnceLock::new();
        let (library, path) = match build {
            Build::Plain => (&PLAIN, env!("SIMT_PLAIN")),
            Build::Check => (&CHECK, env!("SIMT_CHECK")),
        };
        library.get_or_init(|| Self::load(path)).as_ref().map_err(Clone::clone)
    }

    fn load(path: &str) -> Result<Self, String> {
        if path.is_empty() {
            return Err(env!("SIMT_MISSING").into());
        }
        // SAFETY: the object was made by build.rs from the sources beside this file, with these functions; what
        // runs when it is loaded fills tables of its own.
        unsafe {
            let library = libloading::Library::new(path).map_err(|e| format!("{path}: {e}"))?;
            let library: &'static _ = Box::leak(Box::new(library));
            fn symbol<T: Copy>(library: &libloading::Library, name: &str) -> Result<T, String> {
                // SAFETY: as above; each name is asked for with its type.
                unsafe { library.get::<T>(name).map(|symbol| *symbol).map_err(|e| e.to_string()) }
            }
            let count: unsafe extern "C" fn() -> usize = symbol(library, "simt_kernel_count")?;
            let describe: Describe = symbol(library, "simt_kernel")?;
            let kernel = |number| {
                let (mut count, mut sizes) = (0, std::ptr::null());
                let name = CStr::from_ptr(describe(number, &mut count, &mut sizes)).to_string_lossy().into_owned();
                (name, slice::from_raw_parts(sizes, count as usize).iter().map(|&size| size as usize).collect())
            };
            Ok(Self {
                launch: symbol(library, "simt_launch")?,
                alloc: symbol(library, "simt_alloc")?,
                free: symbol(library, "simt_free")?,
                host_wrote: symbol(library, "simt_host_wrote")?,
                now: symbol(library, "simt_now")?,
                turn: Mutex::new(()),
                kernels: (0..count()).map(kernel).collect(),
            })
        }
    }

    pub fn alloc(&self, bytes: usize) -> *mut u8 {
        let _turn = self.turn.lock().expect("never held over a panic");
        // SAFETY: any size may be asked for.
        unsafe { (self.alloc)(bytes) }
    }

    /// # Safety
    /// `ptr` is from [`Self::alloc`] and not used from here on.
    pub unsafe fn free(&self, ptr: *mut u8) {
        let _turn = self.turn.lock().expect("never held over a panic");
        // SAFETY: the caller's promise.
        unsafe { (self.free)(ptr) }
    }

    pub fn host_wrote(&self, ptr: *mut u8, len: usize) {
        let _turn = self.turn.lock().expect("never held over a panic");
        // SAFETY: the pointer is looked up, not followed.
        unsafe { (self.host_wrote)(ptr, len) }
    }

    /// The time of the check build's records; else 0.
    pub fn now(&self) -> u32 {
        let _turn = self.turn.lock().expect("never held over a panic");
        // SAFETY: it reads a number.
        unsafe { (self.now)() }
    }

    /// # Safety
    /// As [`crate::Simt::launch`], with as many arguments as the kernel takes.
    pub unsafe fn launch(&self, kernel: &CStr, config: &Config, args: &mut [*mut c_void]) -> Result<(), String> {
        let mut error = [0u8; 4096];
        let _turn = self.turn.lock().expect("never held over a panic");
        // SAFETY: the caller's promise; the message is ended within its room.
        let failed = unsafe {
            (self.launch)(kernel.as_ptr(), config, args.as_mut_ptr(), error.as_mut_ptr().cast(), error.len()) != 0
        };
        match failed {
            false => Ok(()),
            true => Err(CStr::from_bytes_until_nul(&error).expect("it is ended").to_string_lossy().into_owned()),
        }
    }
}
