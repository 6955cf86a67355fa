//! Memory and streams of the program that embeds us.

use std::ffi::c_void;

use cudarc::driver::sys::{self, CUresult};

use super::context::failure;
use super::driver_is_there;
use crate::{Error, Result};

/// Copies bytes into another context's device memory, in the order of its stream (null for its default one). Returns
/// when `bytes` may change; what is enqueued on the stream afterwards finds them there.
///
/// # Errors
///
/// [`Error::Device`] without a driver, and when the address is none of a device.
///
/// # Safety
///
/// From `address` on there are as many bytes of device memory, and the stream is one of the same context. Where memory
/// has none, of a pool or of `cuMemMap`, null is the default stream of the card's primary context.
pub unsafe fn copy_to_device(bytes: &[u8], address: u64, stream: *mut c_void) -> Result<()> {
    const WHERE: &str = "the caller's CUDA memory";
    if !driver_is_there() {
        let (problem, hint) = ("there is no CUDA driver here (libcuda cannot be loaded)", "use memory of the host");
        return Err(Error::Device { device: WHERE.into(), problem: problem.into(), hint: hint.into() });
    }
    let check = |result: CUresult, doing: &str| match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        error => Err(failure(WHERE, doing, error)),
    };
    let stream: sys::CUstream = stream.cast();
    let context = Foreign::of(address, stream, check)?;
    // SAFETY: a context that lives: the memory's, the stream's or a retained one.
    check(unsafe { sys::cuCtxPushCurrent_v2(context.raw) }, "entering the caller's context")?;
    // SAFETY: the caller's word for the memory and the stream.
    let copied = unsafe { sys::cuMemcpyHtoDAsync_v2(address, bytes.as_ptr().cast(), bytes.len(), stream) };
    // From memory that is not page-locked: the driver has taken the bytes over when it returns, unless the card reads
    // the host's pages itself. A context that is let go afterwards may end then, and the copy with it.
    let taken = match reads_pages() || context.retained.is_some() {
        // SAFETY: the stream is of this context.
        true => unsafe { sys::cuStreamSynchronize(stream) },
        false => CUresult::CUDA_SUCCESS,
    };
    // SAFETY: takes off what was put on above.
    unsafe { sys::cuCtxPopCurrent_v2(&mut std::ptr::null_mut()) };
    check(copied, "copying pictures").and_then(|()| check(taken, "waiting for the copy"))
}

/// The context in which the caller's memory is written.
struct Foreign {
    raw: sys::CUcontext,
    /// The card whose primary context it is, where it was retained.
    retained: Option<sys::CUdevice>,
}

impl Foreign {
    /// The memory's own context; memory of a pool or of `cuMemMap` has none, then the stream's, or else the one that
    /// a card's runtime users share.
    fn of(address: u64, stream: sys::CUstream, check: impl Fn(CUresult, &str) -> Result<()>) -> Result<Self> {
        use sys::CUpointer_attribute as Attribute;
        let found = |result, raw: sys::CUcontext| result == CUresult::CUDA_SUCCESS && !raw.is_null();
        let mut raw: sys::CUcontext = std::ptr::null_mut();
        // SAFETY: the driver writes a handle; an address that it does not know is an error.
        let asked = unsafe {
            sys::cuPointerGetAttribute((&raw mut raw).cast(), Attribute::CU_POINTER_ATTRIBUTE_CONTEXT, address)
        };
        if found(asked, raw) {
            return Ok(Self { raw, retained: None });
        }
        // SAFETY: the driver writes a handle; the stream lives, by the caller's word.
        if !stream.is_null() && found(unsafe { sys::cuStreamGetCtx(stream, &mut raw) }, raw) {
            return Ok(Self { raw, retained: None });
        }
        let (mut ordinal, mut device) = (0i32, 0);
        let attribute = Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
        // SAFETY: the driver writes an integer; an address that it does not know is an error.
        let asked = unsafe { sys::cuPointerGetAttribute((&raw mut ordinal).cast(), attribute, address) };
        check(asked, "looking up the address")?;
        // SAFETY: the driver writes a handle.
        check(unsafe { sys::cuDeviceGet(&mut device, ordinal) }, "looking up the memory's card")?;
        // SAFETY: the driver writes a handle; it is released when this is dropped.
        check(unsafe { sys::cuDevicePrimaryCtxRetain(&mut raw, device) }, "looking up the card's context")?;
        Ok(Self { raw, retained: Some(device) })
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Some(device) = self.retained {
            // SAFETY: it was retained once.
            unsafe { sys::cuDevicePrimaryCtxRelease_v2(device) };
        }
    }
}

/// Whether the card of the context that was entered reads the host's pageable memory itself.
fn reads_pages() -> bool {
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES;
    let (mut device, mut reads) = (0, 0);
    // SAFETY: the driver writes a handle and an integer.
    let asked = unsafe { [sys::cuCtxGetDevice(&mut device), sys::cuDeviceGetAttribute(&mut reads, attribute, device)] };
    // Waiting is never wrong.
    asked != [CUresult::CUDA_SUCCESS; 2] || reads != 0
}
