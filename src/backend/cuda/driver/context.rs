//! A CUDA context of our own, and the driver's errors in words.
//!
//! A kernel that faults ends its context: every later call in it returns the same error. So each opened device
//! has a context of its own rather than the process's shared ("primary") one: the way on, which destroys our
//! context with all that the dead session held and makes a new one, does not tear memory from under others in a
//! program that embeds us. NVIDIA promises nothing short of a new process, neither to us nor to those others; where
//! the driver refuses the new context, the error says to start one.
//!
//! Calls put the context on the thread's stack and take it off again, so a thread that uses CUDA for itself
//! finds things as it left them. Captures of graphs by others do not count meanwhile: one in the mode that PyTorch takes
//! by default forbids threads to allocate or wait that have not asked to be left out, and ends with the first that does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use cudarc::driver::DriverError;
use cudarc::driver::sys::{self, CUresult};

use crate::{Error, Result};

/// A context, until it is destroyed.
pub(super) struct Context {
    /// `None` once destroyed. Calls hold the lock to read: nobody destroys a context that is in use.
    raw: RwLock<Option<Raw>>,
    /// A kernel faulted, or the card did.
    broken: AtomicBool,
    /// The card, for errors.
    device: String,
}

#[derive(Clone, Copy)]
struct Raw(sys::CUcontext);

// SAFETY: a context is a handle; the driver takes it from any thread.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Context {
    /// A new context on the card number `ordinal`; `device` names it in errors.
    pub fn new(ordinal: sys::CUdevice, device: String) -> Result<Self> {
        let _uncaptured = Uncaptured::new();
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUctx_flags::CU_CTX_SCHED_AUTO as u32;
        // SAFETY: no parameters is a null pointer; the driver writes the handle.
        let made = unsafe { sys::cuCtxCreate_v4(&mut raw, std::ptr::null_mut(), flags, ordinal) };
        if made != CUresult::CUDA_SUCCESS {
            return Err(failure(&device, "making a context", made));
        }
        // SAFETY: creation left it on this thread's stack, where `enter` puts it when it is needed.
        unsafe { sys::cuCtxPopCurrent_v2(&mut std::ptr::null_mut()) };
        Ok(Self { raw: RwLock::new(Some(Raw(raw))), broken: AtomicBool::new(false), device })
    }

    /// The card, for people.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// A fault ended it.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Makes calls in the context. They must not come back here.
    pub fn enter<T>(&self, calls: impl FnOnce() -> Result<T>) -> Result<T> {
        let raw = self.raw.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Raw(context)) = *raw else {
            return Err(Error::Device {
                device: self.device.clone(),
                problem: "its context ended with an earlier fault".into(),
                hint: "start a new session".into(),
            });
        };
        let _uncaptured = Uncaptured::new();
        let mut entered = Entered::default();
        // SAFETY: the context lives while the lock is held.
        self.check(unsafe { entered.enter(context) }, || "entering the context".into())?;
        calls()
    }

    /// An error that tells what was done; a fault is remembered.
    pub fn check(&self, result: CUresult, doing: impl FnOnce() -> String) -> Result<()> {
        if result == CUresult::CUDA_SUCCESS {
            return Ok(());
        }
        if ends_context(result) {
            self.broken.store(true, Ordering::Release);
        }
        Err(failure(&self.device, &doing(), result))
    }

    /// Frees everything that was made in it. Later calls are errors.
    pub fn destroy(&self) {
        if let Some(Raw(context)) = self.raw.write().unwrap_or_else(PoisonError::into_inner).take() {
            let _uncaptured = Uncaptured::new();
            // SAFETY: the handle is taken, so it is destroyed once; the lock says that no call is under way.
            unsafe { sys::cuCtxDestroy_v2(context) };
        }
    }
}

/// The thread is forbidden nothing for the sake of captures, until this is dropped, even where calls panic: the thread may
/// be another program's.
pub(super) struct Uncaptured(sys::CUstreamCaptureMode);

impl Uncaptured {
    pub fn new() -> Self {
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the driver takes the mode and writes the one before. It refuses none of the three.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) };
        Self(mode)
    }
}

impl Drop for Uncaptured {
    fn drop(&mut self) {
        // SAFETY: gives back what was there.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut self.0) };
    }
}

/// A context that the thread is in, until this is dropped; at first none.
#[derive(Default)]
pub(super) struct Entered {
    pushed: bool,
}

impl Entered {
    /// Enters a context, once.
    ///
    /// # Safety
    /// It lives until this is dropped.
    pub unsafe fn enter(&mut self, context: sys::CUcontext) -> CUresult {
        // SAFETY: the caller's word.
        let pushed = unsafe { sys::cuCtxPushCurrent_v2(context) };
        self.pushed = pushed == CUresult::CUDA_SUCCESS;
        pushed
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.pushed {
            // SAFETY: takes off what was put on.
            unsafe { sys::cuCtxPopCurrent_v2(&mut std::ptr::null_mut()) };
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.destroy();
    }
}

/// Whether an error is the context's last.
fn ends_context(result: CUresult) -> bool {
    use CUresult as C;
    matches!(
        result,
        C::CUDA_ERROR_ILLEGAL_ADDRESS
            | C::CUDA_ERROR_LAUNCH_TIMEOUT
            | C::CUDA_ERROR_ASSERT
            | C::CUDA_ERROR_HARDWARE_STACK_ERROR
            | C::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | C::CUDA_ERROR_MISALIGNED_ADDRESS
            | C::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | C::CUDA_ERROR_INVALID_PC
            | C::CUDA_ERROR_LAUNCH_FAILED
            | C::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | C::CUDA_ERROR_ECC_UNCORRECTABLE
            | C::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | C::CUDA_ERROR_CONTAINED
            | C::CUDA_ERROR_EXTERNAL_DEVICE
            | C::CUDA_ERROR_MPS_CLIENT_TERMINATED
            | C::CUDA_ERROR_TENSOR_MEMORY_LEAK
            | C::CUDA_ERROR_UNKNOWN
    )
}

/// What was being done, the driver's name and words for the error, and the cure.
pub(super) fn failure(device: &str, doing: &str, result: CUresult) -> Error {
    let error = DriverError(result);
    let text = |text: Result<&std::ffi::CStr, DriverError>| text.ok().map(|text| text.to_string_lossy().into_owned());
    let name = text(error.error_name()).unwrap_or_else(|| format!("error {}", result as u32));
    let words = text(error.error_string()).map_or_else(String::new, |words| format!(" ({words})"));
    Error::Device { device: device.into(), problem: format!("{doing}: {name}{words}"), hint: cure(result).into() }
}

/// What to do about an error.
fn cure(result: CUresult) -> &'static str {
    use CUresult as C;
    match result {
        C::CUDA_ERROR_ECC_UNCORRECTABLE | C::CUDA_ERROR_NVLINK_UNCORRECTABLE => {
            "the card's memory or links failed; look at `nvidia-smi -q`"
        }
        result if ends_context(result) => {
            "start a new session, or the program again if that fails; \
             with SMALTI_CUDA_EAGER=1 launches run one by one and the one that fails is named"
        }
        C::CUDA_ERROR_NO_BINARY_FOR_GPU | C::CUDA_ERROR_UNSUPPORTED_PTX_VERSION | C::CUDA_ERROR_INVALID_PTX => {
            "build with SMALTI_CUDA_ARCHS=native on this machine, or update the driver"
        }
        C::CUDA_ERROR_NO_DEVICE => "check that `nvidia-smi` lists the card and that CUDA_VISIBLE_DEVICES names it",
        C::CUDA_ERROR_STUB_LIBRARY => "the linker's stub of libcuda is in the way; take it out of LD_LIBRARY_PATH",
        C::CUDA_ERROR_SYSTEM_NOT_READY => "start the services of the machine's cards, such as NVIDIA's fabric manager",
        C::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH | C::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "libcuda and the kernel's driver are of different versions; install them together, or restart the machine"
        }
        C::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        | C::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
        | C::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT => {
            "another part of the program is capturing a graph; try again when the capture has ended"
        }
        C::CUDA_ERROR_OUT_OF_MEMORY => "free memory on the card: `nvidia-smi` lists who holds it",
        C::CUDA_ERROR_DEVICE_UNAVAILABLE => "another process has the card for itself; `nvidia-smi` lists it",
        _ => "check that `nvidia-smi` runs; --device cpu works without a GPU",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_end_a_context_and_refusals_do_not() {
        for fault in [CUresult::CUDA_ERROR_ILLEGAL_ADDRESS, CUresult::CUDA_ERROR_LAUNCH_FAILED] {
            assert!(ends_context(fault));
            assert!(cure(fault).contains("SMALTI_CUDA_EAGER=1"));
        }
        for refusal in [
            CUresult::CUDA_ERROR_OUT_OF_MEMORY,
            CUresult::CUDA_ERROR_INVALID_VALUE,
            CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
        ] {
            assert!(!ends_context(refusal));
        }
    }
}
