//! The CUDA driver: a card as a [`Device`], by cudarc's dynamically loaded calls.
//!
//! One program runs with and without a driver: nothing is linked, and [`CudaDevice::open`] asks for everything
//! in turn (kernels, driver, its version, the card) before it relies on it. Depends on [`super::device`] and the
//! kernels' machine code alone.

mod context;
mod foreign;
mod functions;
mod stream;
mod support;

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::sys::{self, CUresult};

pub use self::foreign::copy_to_device;

use self::context::{Context, failure};
use self::functions::Functions;
use self::stream::CudaStream;
use self::support::{Built, Version, waits};
use super::device::{Capacity, Device, DeviceBuffer, Mapped, Memory, Ptr, Stream, seconds_at_work};
use super::kernels;
use crate::{Error, Result};

/// Names the variable that makes replays launch one by one, where it is 1.
const EAGER: &str = "SMALTI_CUDA_EAGER";

/// Names the variable that keeps launches from beginning before the one ahead of them ends, where it is 0.
const OVERLAP: &str = "SMALTI_CUDA_OVERLAP";

/// Names the variable with the percent of the shared memory that a multiprocessor can have, the rest being cache; -1 leaves
/// it to the driver.
const CARVEOUT: &str = "SMALTI_CUDA_CARVEOUT";

/// What [`CARVEOUT`] says.
fn carveout(value: Option<OsString>) -> Result<Option<i32>> {
    let Some(value) = value else { return Ok(None) };
    let percent = value.to_str().and_then(|value| value.parse().ok()).filter(|percent| (-1..=100).contains(percent));
    percent.map(Some).ok_or_else(|| Error::Option {
        option: CARVEOUT,
        value: value.to_string_lossy().into_owned(),
        expected: "a percentage, 0 to 100, or -1".into(),
        hint: "-1 leaves it to the driver".into(),
    })
}

/// A card with a context of its own.
pub struct CudaDevice(Arc<Opened>);

/// What a device and its streams share.
struct Opened {
    number: usize,
    context: Context,
    functions: Functions,
    capacity: Capacity,
    /// Launches may begin before the one ahead of them ends.
    programmatic: bool,
    /// Replays launch one by one and wait after each, to find the one that fails.
    eager: bool,
}

/// Whether this machine looks as if it had an NVIDIA GPU: a driver, or the kernel's side of one.
pub fn seems_present() -> bool {
    driver_is_there() || std::path::Path::new("/proc/driver/nvidia").exists()
}

fn driver_is_there() -> bool {
    static FOUND: AtomicBool = AtomicBool::new(false);
    // SAFETY: loads a library of the driver's name and lets it go; what it runs when loaded is NVIDIA's.
    let there = FOUND.load(Ordering::Relaxed) || unsafe { sys::is_culib_present() };
    FOUND.store(there, Ordering::Relaxed);
    there
}

/// How many cards the driver has, once it was started.
fn count() -> Result<usize, CUresult> {
    let mut count = 0;
    // SAFETY: the driver writes an integer.
    match unsafe { sys::cuDeviceGetCount(&mut count) } {
        CUresult::CUDA_SUCCESS => Ok(count.max(0) as usize),
        error => Err(error),
    }
}

impl CudaDevice {
    /// The first card that can be opened; else why the first one cannot.
    pub fn open_any() -> Result<Self> {
        let first = match Self::open(0) {
            Err(error @ Error::Device { .. }) => error,
            opened => return opened,
        };
        let others = if driver_is_there() { count().unwrap_or(0) } else { 0 };
        (1..others).find_map(|number| Self::open(number).ok()).ok_or(first)
    }

    /// Opens card `number`. Errors tell what is missing: kernels, driver, a card of that number, one that the
    /// kernels run on.
    pub fn open(number: usize) -> Result<Self> {
        let device = format!("cuda:{number}");
        let wrong =
            |problem: String, hint: &str| Err(Error::Device { device: device.clone(), problem, hint: hint.into() });
        if kernels::MODULES.is_empty() {
            return wrong("this program was built without CUDA kernels".into(), REBUILD);
        }
        if !driver_is_there() {
            let hint = "install NVIDIA's driver (in a container: run it with the GPU), or use --device cpu";
            return wrong("there is no CUDA driver here (libcuda cannot be loaded)".into(), hint);
        }
        let call = |result: CUresult, doing: &str| match result {
            CUresult::CUDA_SUCCESS => Ok(()),
            error => Err(failure(&device, doing, error)),
        };
        let mut version = 0;
        // SAFETY: the driver writes an integer; this call needs nothing before it.
        call(unsafe { sys::cuDriverGetVersion(&mut version) }, "asking for the driver's version")?;
        let (driver, needed) = (Version::of_driver(version), Built::THIS.needed_driver());
        if driver < needed {
            let problem = format!("the driver is for CUDA {driver}, this program needs one for {needed} or later");
            return wrong(problem, "update NVIDIA's driver, or build this program with an older CUDA toolkit");
        }
        // SAFETY: the flags must be 0.
        call(unsafe { sys::cuInit(0) }, "starting the driver")?;
        let count = count().or_else(|error| call(error, "counting cards").map(|()| 0))?;
        if number >= count {
            let have = match count {
                0 => "there is no NVIDIA GPU".to_string(),
                1 => "there is one NVIDIA GPU, cuda:0".to_string(),
                count => format!("there are {count} NVIDIA GPUs, cuda:0 to cuda:{}", count - 1),
            };
            return wrong(have, "`nvidia-smi` lists the cards, CUDA_VISIBLE_DEVICES hides some");
        }
        let mut ordinal = 0;
        // SAFETY: there is a card of that number.
        call(unsafe { sys::cuDeviceGet(&mut ordinal, number as i32) }, "choosing the card")?;
        let card = Card::ask(ordinal, &call)?;
        let device = format!(
            "cuda:{number} ({}, sm_{}{}, {} SMs)",
            card.name, card.capability.0, card.capability.1, card.capacity.multiprocessors
        );
        let target = match Built::THIS.target(card.capability, driver) {
            Ok(target) => target,
            Err(problem) => {
                let hint = "build on this machine with SMALTI_CUDA_ARCHS=native, or use --device cpu";
                return Err(Error::Device { device, problem, hint: hint.into() });
            }
        };
        let says = |variable: &str, what: &str| std::env::var_os(variable).is_some_and(|value| value == what);
        Ok(Self(Arc::new(Opened {
            number,
            context: Context::new(ordinal, device)?,
            functions: Functions::new(carveout(std::env::var_os(CARVEOUT))?, card.capacity),
            capacity: card.capacity,
            programmatic: waits(target) && !says(OVERLAP, "0"),
            eager: says(EAGER, "1"),
        })))
    }
}

/// How to get a program with kernels.
const REBUILD: &str = "install nvcc (the CUDA toolkit or its Python wheels, see the README), set CUDA_HOME to its \
                       folder and build again; or use --device cpu";

/// What a card says of itself.
struct Card {
    name: String,
    capability: Version,
    capacity: Capacity,
}

impl Card {
    fn ask(ordinal: sys::CUdevice, call: &impl Fn(CUresult, &str) -> Result<()>) -> Result<Self> {
        use sys::CUdevice_attribute as Attribute;
        let attribute = |attribute: Attribute| {
            let mut value = 0;
            // SAFETY: the driver writes an integer about a card that there is.
            call(unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, ordinal) }, "asking about the card")?;
            Ok::<_, Error>(value.max(0) as u32)
        };
        let mut name = [0u8; 256];
        // SAFETY: the driver writes at most so many bytes, the last one zero.
        call(
            unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as i32, ordinal) },
            "asking for the card's name",
        )?;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        Ok(Self {
            name: String::from_utf8_lossy(&name[..end]).into_owned(),
            capability: Version(
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            capacity: Capacity {
                multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
                shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
            },
        })
    }
}

impl Opened {
    /// The card's memory. In the context.
    fn memory(&self) -> Result<Memory> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the driver writes two sizes.
        self.context.check(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) }, || "asking for memory".into())?;
        Ok(Memory { free_bytes: free as u64, total_bytes: total as u64 })
    }

    /// An allocation's outcome; too little memory is an error of its own. In the context.
    fn check_alloc(&self, result: CUresult, bytes: usize, what: &str) -> Result<()> {
        if result != CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return self.context.check(result, || format!("allocating {bytes} bytes {what}"));
        }
        Err(Error::OutOfMemory {
            what: format!("a buffer {what} of {}", self.context.device()),
            needed_bytes: bytes as u64,
            free_bytes: self.memory()?.free_bytes,
            hint: "use a smaller --batch-size or --image-size, or free memory: `nvidia-smi` lists who holds it".into(),
        })
    }
}

impl Device for CudaDevice {
    fn describe(&self) -> String {
        self.0.context.device().into()
    }

    fn capacity(&self) -> Capacity {
        self.0.capacity
    }

    fn memory(&self) -> Result<Memory> {
        self.0.context.enter(|| self.0.memory())
    }

    fn alloc(&self, bytes: usize) -> Result<Ptr> {
        let context = &self.0.context;
        context.enter(|| {
            let mut address = 0;
            // SAFETY: the driver writes the address; it is aligned to 256 bytes at least.
            self.0.check_alloc(unsafe { sys::cuMemAlloc_v2(&mut address, bytes) }, bytes, "in the memory")?;
            // SAFETY: the memory was just allocated, `bytes` long.
            let zeroed = unsafe { sys::cuMemsetD8_v2(address, 0, bytes) };
            // The zeros are written on the default stream, beside which the others run: wait for them here.
            // SAFETY: the null stream is the default one.
            let done = unsafe { sys::cuStreamSynchronize(std::ptr::null_mut()) };
            let checked = [zeroed, done].map(|result| context.check(result, || format!("zeroing {bytes} bytes")));
            if let Some(error) = checked.into_iter().find_map(Result::err) {
                // SAFETY: nobody else knows it.
                unsafe { sys::cuMemFree_v2(address) };
                return Err(error);
            }
            Ok(Ptr(address))
        })
    }

    fn alloc_mapped(&self, bytes: usize) -> Result<Mapped> {
        self.0.context.enter(|| {
            let (mut host, mut address) = (std::ptr::null_mut(), 0);
            // SAFETY: the driver writes the address of page-locked memory.
            let made = unsafe { sys::cuMemHostAlloc(&mut host, bytes, sys::CU_MEMHOSTALLOC_DEVICEMAP) };
            self.0.check_alloc(made, bytes, "of the host, seen by the memory")?;
            // SAFETY: just allocated, `bytes` long, and nobody else knows it.
            unsafe { std::ptr::write_bytes(host.cast::<u8>(), 0, bytes) };
            // SAFETY: the memory was allocated to be mapped.
            let mapped = unsafe { sys::cuMemHostGetDevicePointer_v2(&mut address, host, 0) };
            if let Err(error) = self.0.context.check(mapped, || "mapping host memory".into()) {
                // SAFETY: nobody else knows it.
                unsafe { sys::cuMemFreeHost(host) };
                return Err(error);
            }
            Ok(Mapped { device: Ptr(address), host: host.cast() })
        })
    }

    fn with_mapped(&self, work: &mut dyn FnMut()) -> Result<()> {
        self.0.context.enter(|| {
            work();
            Ok(())
        })
    }

    unsafe fn free(&self, ptr: Ptr) {
        // SAFETY: the caller's word. Without the context the memory went with it.
        let _ = self.0.context.enter(|| Ok(unsafe { sys::cuMemFree_v2(ptr.0) }));
    }

    unsafe fn free_mapped(&self, mapped: Mapped) {
        // SAFETY: as in `free`.
        let _ = self.0.context.enter(|| Ok(unsafe { sys::cuMemFreeHost(mapped.host.cast()) }));
    }

    fn stream(&self) -> Result<Box<dyn Stream>> {
        Ok(Box::new(CudaStream::new(self.0.clone())?))
    }

    fn keeps_time(&self) -> bool {
        true
    }

    fn copy_bandwidth(&self) -> Result<Option<f64>> {
        /// Far more than any cache holds, and less than a thousandth of a second.
        const BYTES: u64 = 1 << 30;
        const COPIES: usize = 8;
        let bytes = BYTES.min(self.memory()?.free_bytes / 4) as usize;
        let device: Arc<dyn Device> = Arc::new(Self(self.0.clone()));
        let (from, to) = (DeviceBuffer::new(&device, bytes)?, DeviceBuffer::new(&device, bytes)?);
        let stream = CudaStream::new(self.0.clone())?;
        let seconds = seconds_at_work(|| stream.copy(&from, &to, COPIES))?;
        Ok(Some((2 * COPIES * bytes) as f64 / seconds))
    }

    fn renewed(&self) -> Result<Option<Arc<dyn Device>>> {
        if !self.0.context.is_broken() {
            return Ok(None);
        }
        // First, so that the memory that the dead sessions hold is there for the new one.
        self.0.context.destroy();
        Ok(Some(Arc::new(Self::open(self.0.number)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carveout_is_a_percentage() {
        assert_eq!(carveout(None).unwrap(), None);
        for percent in [-1, 0, 100] {
            assert_eq!(carveout(Some(percent.to_string().into())).unwrap(), Some(percent));
        }
        for wrong in ["", "101", "-2", "half"] {
            let error = carveout(Some(wrong.into())).unwrap_err();
            assert_eq!(error.to_string(), format!("{CARVEOUT} {wrong}: expected a percentage, 0 to 100, or -1"));
        }
    }
}
