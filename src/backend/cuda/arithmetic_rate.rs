//! How fast a device multiplies bf16 by `mma.m16n8k16`, the instruction of every kernel that multiplies matrices:
//! the rate beside which floors are told.

use std::sync::Arc;

use super::device::{Device, DeviceBuffer, Launch, Stream, seconds_at_work};
use super::kernels;
use crate::Result;

/// Threads of a block, warps of it, and accumulators of a warp, as the kernel has them.
const THREADS: usize = 256;
const WARPS: usize = THREADS / 32;
const ACCUMULATORS: usize = 8;

/// Enough for four warps on each of a multiprocessor's tensor cores.
const BLOCKS_PER_MULTIPROCESSOR: usize = 2;

/// Products of every accumulator in a measurement: some 8 ms on an H200.
const TIMES: usize = 1 << 16;

/// FLOP/s, measured now; a multiply-add counts as two.
pub fn measure(device: &Arc<dyn Device>) -> Result<f64> {
    let mut products = Products::new(device)?;
    let seconds = seconds_at_work(|| products.run(TIMES))?;
    Ok(products.flops(TIMES) / seconds)
}

/// What every thread sums up in `times` products.
pub fn sums(device: &Arc<dyn Device>, times: usize) -> Result<Vec<f32>> {
    let mut products = Products::new(device)?;
    products.run(times)?;
    let mut sums = vec![0f32; products.blocks * THREADS];
    // SAFETY: the buffer is of that length.
    unsafe { products.stream.read(products.out.ptr(), bytemuck::cast_slice_mut(&mut sums))? };
    Ok(sums)
}

/// The kernel and where it writes.
struct Products {
    stream: Box<dyn Stream>,
    out: DeviceBuffer,
    blocks: usize,
}

impl Products {
    fn new(device: &Arc<dyn Device>) -> Result<Self> {
        let blocks = BLOCKS_PER_MULTIPROCESSOR * device.capacity().multiprocessors;
        Ok(Self {
            stream: device.stream()?,
            out: DeviceBuffer::new(device, blocks * THREADS * size_of::<f32>())?,
            blocks,
        })
    }

    /// Returns when they are done.
    fn run(&mut self, times: usize) -> Result<()> {
        let launch = Launch::new(kernels::ARITHMETIC_RATE, [self.blocks, 1, 1], THREADS)
            .of(&"arithmetic rate".into())
            .arg(self.out.ptr())
            .size(times);
        // SAFETY: a buffer of one f32 per thread and a number are what the kernel takes.
        unsafe { self.stream.launch(&[launch])? };
        self.stream.synchronize()
    }

    fn flops(&self, times: usize) -> f64 {
        const PRODUCT: usize = 2 * 16 * 8 * 16;
        (self.blocks * WARPS * ACCUMULATORS * PRODUCT) as f64 * times as f64
    }
}
