//! Memory and streams of the program that embeds us.

use std::ffi::c_void;

use cudarc::driver::sys::{self, CUresult};

use super::context::{Entered, Uncaptured, failure};
use super::driver_is_there;
use crate::{Error, Result};

/// Copies bytes into another context's device memory, in the order of its stream (null for its default one), and returns
/// when they are there.
///
/// # Errors
///
/// [`Error::Device`] without a driver, when the address is none of a device, and while the stream is capturing a graph.
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
    // Longer than a context is retained.
    let _uncaptured = Uncaptured::new();
    let context = Foreign::of(address, stream, check)?;
    let mut entered = Entered::default();
    // SAFETY: a context that lives: the memory's, the stream's or a retained one.
    check(unsafe { entered.enter(context.raw) }, "entering the caller's context")?;
    let mut captures = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    // SAFETY: the stream is of this context; the driver writes a status.
    check(unsafe { sys::cuStreamIsCapturing(stream, &mut captures) }, "asking about the caller's stream")?;
    if captures != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
        let problem = "the stream is capturing a graph, whose launches would copy from bytes that are gone by then";
        let hint = "end the capture first, or give another stream";
        return Err(Error::Device { device: WHERE.into(), problem: problem.into(), hint: hint.into() });
    }
    // SAFETY: the caller's word for the memory and the stream.
    let copied = unsafe { sys::cuMemcpyHtoDAsync_v2(address, bytes.as_ptr().cast(), bytes.len(), stream) };
    check(copied, "copying pictures")?;
    // Nobody promises that the driver has taken bytes over before, and a context that is let go ends with its copies.
    // SAFETY: the stream is of this context.
    check(unsafe { sys::cuStreamSynchronize(stream) }, "waiting for the copy")
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
