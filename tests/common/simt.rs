//! The CUDA executor without a GPU: its device is the SIMT executor, which runs the kernels on the CPU.

use std::ffi::c_void;
use std::sync::Arc;

use smalti::backend::cuda::CudaExecutor;
use smalti::backend::cuda::device::{Capacity, Device, Launch, Mapped, Memory, Ptr, Recording, Stream};
use smalti::{Error, Result};
use smalti_simt::{Build, Copies, Order, Simt};

/// One way to run the kernels: what warps go first, when copies arrive, and whether every access is watched.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub build: Build,
    pub order: Order,
    pub copies: Copies,
}

/// The ways that every kernel is tested in; the results must be the same bits.
pub const WAYS: [Way; 4] = [
    Way { build: Build::Plain, order: Order::Forward, copies: Copies::Lazy },
    Way { build: Build::Plain, order: Order::Reverse, copies: Copies::Eager },
    Way { build: Build::Plain, order: Order::Random(1), copies: Copies::Lazy },
    Way { build: Build::Check, order: Order::Forward, copies: Copies::Lazy },
];

/// An executor that runs the kernels in that way; the error says what the machine lacks.
pub fn executor(way: Way) -> Result<CudaExecutor, String> {
    executor_of(way, 4)
}

/// The same on a device that says it has so many multiprocessors, which decides how work is cut.
pub fn executor_of(way: Way, multiprocessors: usize) -> Result<CudaExecutor, String> {
    Ok(CudaExecutor::new(device(way, multiprocessors)?))
}

/// The device of such an executor.
pub fn device(way: Way, multiprocessors: usize) -> Result<Arc<dyn Device>, String> {
    let simt = Simt::open(way.build)?;
    simt.configure(way.order, way.copies);
    Ok(Arc::new(SimtDevice { simt: Arc::new(simt), way, multiprocessors }))
}

/// What a device of so many multiprocessors says of itself.
pub fn capacity(multiprocessors: usize) -> Capacity {
    Capacity { multiprocessors, shared_bytes: 227 * 1024 }
}

struct SimtDevice {
    simt: Arc<Simt>,
    way: Way,
    multiprocessors: usize,
}

impl Device for SimtDevice {
    fn describe(&self) -> String {
        format!("simt ({:?})", self.way)
    }

    fn capacity(&self) -> Capacity {
        capacity(self.multiprocessors)
    }

    fn memory(&self) -> Result<Memory> {
        Ok(Memory { free_bytes: 1 << 34, total_bytes: 1 << 34 })
    }

    fn alloc(&self, bytes: usize) -> Result<Ptr> {
        let buffer = self.simt.alloc(bytes);
        // SAFETY: the buffer was just made, `bytes` long.
        unsafe { buffer.write_bytes(0, bytes) };
        self.simt.host_wrote(buffer, bytes);
        Ok(Ptr(buffer as u64))
    }

    fn alloc_mapped(&self, bytes: usize) -> Result<Mapped> {
        let device = self.alloc(bytes)?;
        Ok(Mapped { device, host: device.0 as *mut u8 })
    }

    unsafe fn free(&self, ptr: Ptr) {
        // SAFETY: the caller's promise; launches are over when they return.
        unsafe { self.simt.free(ptr.0 as *mut u8) }
    }

    unsafe fn free_mapped(&self, mapped: Mapped) {
        // SAFETY: as above.
        unsafe { self.simt.free(mapped.host) }
    }

    fn stream(&self) -> Result<Box<dyn Stream>> {
        Ok(Box::new(SimtStream { simt: self.simt.clone(), recordings: Vec::new() }))
    }
}

/// Every launch is over when it returns; a recording is the list of its launches.
struct SimtStream {
    simt: Arc<Simt>,
    recordings: Vec<Vec<Launch>>,
}

impl SimtStream {
    /// # Safety
    /// As for [`Stream::launch`].
    unsafe fn launch_one(&self, launch: &Launch) -> Result<()> {
        let name = launch.kernel.name;
        let failed = |problem: String| Error::Device {
            device: "simt".into(),
            problem: format!("running {}: {problem}", launch.describe()),
            hint: String::new(),
        };
        let expected = self.simt.kernel_args(name).ok_or_else(|| failed("no such kernel".into()))?;
        let given: Vec<usize> = launch.sizes().iter().map(|&size| size.into()).collect();
        if given != expected {
            return Err(failed(format!("takes arguments of {expected:?} bytes, given {given:?}")));
        }
        let mut words = launch.words().to_vec();
        let mut args: Vec<*mut c_void> = words.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
        // SAFETY: number and sizes of the arguments were compared; the rest is the caller's promise.
        unsafe { self.simt.launch(name, launch.grid, launch.block, launch.shared_bytes, false, &mut args) }
            .map_err(failed)
    }
}

impl Stream for SimtStream {
    unsafe fn launch(&mut self, run: &[Launch]) -> Result<()> {
        self.simt.run_begins();
        // SAFETY: passed on.
        run.iter().try_for_each(|launch| unsafe { self.launch_one(launch) })
    }

    unsafe fn record(&mut self, launches: &[Launch]) -> Result<Recording> {
        self.recordings.push(launches.to_vec());
        Ok(Recording(self.recordings.len() - 1))
    }

    unsafe fn replay(&mut self, recording: Recording, times: usize) -> Result<()> {
        let run = self.recordings[recording.0].clone();
        // SAFETY: passed on.
        (0..times).try_for_each(|_| unsafe { self.launch(&run) })
    }

    unsafe fn write(&mut self, to: Ptr, bytes: &[u8]) -> Result<()> {
        let to = to.0 as *mut u8;
        // SAFETY: the caller's promise: live memory of this device, which is the host's.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.simt.host_wrote(to, bytes.len());
        Ok(())
    }

    unsafe fn read(&mut self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: as above.
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(from.0 as *const u8, bytes.len()) };
        Ok(())
    }

    fn synchronize(&mut self) -> Result<()> {
        Ok(())
    }
}
