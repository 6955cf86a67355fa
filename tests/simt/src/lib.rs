//! The SIMT executor: runs smalti's CUDA kernels on the CPU, so that they are tested where there is no GPU.
//!
//! The sources in `kernels/` are compiled as C++ against a stand-in for CUDA (`include/`) and linked with a
//! runtime (`runtime/`) that runs whole blocks with their threads as fibers: barriers, shuffles, votes,
//! atomics, shared memory, cp.async, ldmatrix and mma.sync do what they do on a device, and much that a
//! device forgives is an error: memory outside a buffer, a barrier that not all reach, a deadlock. It is
//! slow, knows nothing of speed, and is no part of the program.
//!
//! [`Simt`] runs single kernels. [`driver`] is a `libcuda.so` (`driver/`) that has the executor for a card, so that what
//! talks to NVIDIA's driver is tested too.
//!
//! ```
//! use smalti_simt::{Build, Simt};
//!
//! let simt = match Simt::open(Build::Plain) {
//!     Ok(simt) => simt,
//!     Err(reason) => return println!("skipped: {reason}"),
//! };
//! let out = simt.alloc(64 * 4).cast::<u32>();
//! let mut pointer = out;
//! let mut start = 7u32;
//! let args = &mut [(&raw mut pointer).cast(), (&raw mut start).cast()];
//! // SAFETY: test_count writes start + i to the 64 words of its first argument.
//! unsafe {
//!     simt.launch("test_count", [2, 1, 1], [32, 1, 1], 0, false, args).unwrap();
//!     assert_eq!(*out.add(63), 70);
//!     simt.free(out.cast());
//! }
//! ```

mod driver;
mod library;

pub use driver::{Driver, driver};

use std::ffi::{CString, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use library::{Config, Library};

/// How the kernels are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// At full speed. Buffers and shared memory end at guard pages and hold NaN until they are written; of the last
    /// thousand buffers that were freed, every use is found.
    Plain,
    /// Every access is watched, at some ten times the cost: races within and between blocks, reads of what
    /// nobody wrote, accesses outside a buffer, misaligned ones, and what a dependent launch touches before its
    /// wait. In any order of threads: none has to go wrong for a race to be found.
    Check,
}

/// Which of several runnable warps, lanes and blocks goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Forward,
    Reverse,
    /// By a generator with this seed, and with turns at places where a device might take them.
    Random(u64),
}

/// When cp.async takes effect. A device may do either; each hides mistakes that the other shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// When it is issued.
    Eager,
    /// When it is waited for.
    Lazy,
}

/// The kernels of one build.
///
/// Launches of all handles follow one after another; the order and the copies are each handle's own.
#[derive(Debug)]
pub struct Simt {
    library: &'static Library,
    settings: Mutex<(Order, Copies)>,
    /// When the run began that launches belong to.
    run_began: AtomicU32,
}

impl Simt {
    /// Loads a build; the error says what it lacked when this crate was compiled.
    pub fn open(build: Build) -> Result<Self, String> {
        let library = Library::open(build)?;
        Ok(Self { library, settings: Mutex::new((Order::Forward, Copies::Lazy)), run_began: AtomicU32::new(0) })
    }

    /// For the launches from here on; at first [`Order::Forward`] and [`Copies::Lazy`].
    pub fn configure(&self, order: Order, copies: Copies) {
        *self.settings.lock().expect("never held over a panic") = (order, copies);
    }

    /// A buffer filled with 0xFF, at least 16-byte aligned; what lies behind it may not be touched.
    pub fn alloc(&self, bytes: usize) -> *mut u8 {
        let buffer = self.library.alloc(bytes);
        assert!(!buffer.is_null(), "no memory for a buffer of {bytes} bytes");
        buffer
    }

    /// # Safety
    /// `ptr` is from [`Self::alloc`] of the same build, and neither freed nor used from here on.
    pub unsafe fn free(&self, ptr: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { self.library.free(ptr) }
    }

    /// Says that the host has written these bytes of a buffer: the check build lets kernels read nothing else.
    pub fn host_wrote(&self, ptr: *mut u8, len: usize) {
        self.library.host_wrote(ptr, len);
    }

    /// Says that all launches before are over when the next one begins, so that it and those after it may count on what
    /// they wrote from their own beginning. The check build takes them for overlapping before.
    pub fn run_begins(&self) {
        self.run_began.store(self.library.now(), Ordering::Relaxed);
    }

    /// Runs a kernel to its end. Nothing runs where the driver would refuse the launch.
    ///
    /// # Safety
    /// `args` point to values of the kernel's parameter types, and what these point to may be used as the
    /// kernel uses it. An error of the kernel that is found is returned; one that is not is a broken promise.
    pub unsafe fn launch(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        cooperative: bool,
        args: &mut [*mut c_void],
    ) -> Result<(), String> {
        let expected = self.kernel_args(kernel).ok_or_else(|| format!("there is no kernel {kernel}"))?.len();
        if args.len() != expected {
            return Err(format!("{kernel} takes {expected} arguments, and was given {}", args.len()));
        }
        let (order, copies) = *self.settings.lock().expect("never held over a panic");
        let (order, seed) = match order {
            Order::Forward => (0, 0),
            Order::Reverse => (1, 0),
            Order::Random(seed) => (2, seed),
        };
        let lazy_copies = u32::from(copies == Copies::Lazy);
        let cooperative = u32::from(cooperative);
        let run_began = self.run_began.load(Ordering::Relaxed);
        let config = Config { grid, block, shared_bytes, cooperative, order, lazy_copies, run_began, seed };
        let name = CString::new(kernel).expect("the name of a kernel that exists");
        // SAFETY: the kernel exists and takes this many arguments; for the rest the caller's promise.
        unsafe { self.library.launch(&name, &config, args) }
    }

    /// The sizes of a kernel's parameters in bytes.
    pub fn kernel_args(&self, kernel: &str) -> Option<Vec<usize>> {
        self.library.kernels.iter().find(|(name, _)| name == kernel).map(|(_, sizes)| sizes.clone())
    }

    /// The names of the kernels in `kernels/`, in order.
    pub fn kernels(&self) -> Vec<String> {
        let names = self.library.kernels.iter().map(|(name, _)| name);
        names.filter(|name| !name.starts_with("test_")).cloned().collect()
    }
}
