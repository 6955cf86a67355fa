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
/// From `address` on there are as many bytes of device memory, and the stream is one of the same context.
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
    let mut context: sys::CUcontext = std::ptr::null_mut();
    let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_CONTEXT;
    // SAFETY: the driver writes a handle; an address that it does not know is an error.
    let asked = unsafe { sys::cuPointerGetAttribute((&raw mut context).cast(), attribute, address) };
    check(asked, "looking up the address")?;
    // SAFETY: the context of memory that lives.
    check(unsafe { sys::cuCtxPushCurrent_v2(context) }, "entering the caller's context")?;
    // From memory that is not page-locked: the driver has taken the bytes over when it returns.
    // SAFETY: the caller's word for the memory and the stream.
    let copied = unsafe { sys::cuMemcpyHtoDAsync_v2(address, bytes.as_ptr().cast(), bytes.len(), stream.cast()) };
    // SAFETY: takes off what was put on above.
    unsafe { sys::cuCtxPopCurrent_v2(&mut std::ptr::null_mut()) };
    check(copied, "copying pictures")
}
