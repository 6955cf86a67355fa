//! What the executor needs of a device: memory, and launches by name.
//!
//! Two implementations: the CUDA driver ([`super::driver`]), and in the tests the SIMT executor, which runs
//! the same kernel sources on the CPU. A [`Launch`] is plain data, decided once and replayed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Result;

/// A kernel by its name; the generated constants in [`super::kernels`] are the only ones there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The name it is exported by.
    pub name: &'static str,
    /// The stem of its file in `kernels/`, and of the module that holds it.
    pub module: &'static str,
}

/// An address on the device; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ptr(pub u64);

impl Ptr {
    pub const NULL: Self = Self(0);

    /// The address `bytes` further on.
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// A kernel's argument: its little-endian bits and how many bytes of them count.
pub trait Arg: Copy {
    fn word(self) -> (u64, u8);
}

impl Arg for Ptr {
    fn word(self) -> (u64, u8) {
        (self.0, 8)
    }
}

impl Arg for u32 {
    fn word(self) -> (u64, u8) {
        (self.into(), 4)
    }
}

impl Arg for f32 {
    fn word(self) -> (u64, u8) {
        (self.to_bits().into(), 4)
    }
}

/// One kernel launch with everything that it needs; sizes in threads and blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The name of the op that it is a part of, for errors.
    pub op: Arc<str>,
    pub kernel: Kernel,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Dynamic shared memory.
    pub shared_bytes: u32,
    words: Vec<u64>,
    sizes: Vec<u8>,
}

impl Launch {
    /// Blocks of `threads` threads, without shared memory and arguments.
    pub fn new(kernel: Kernel, grid: [usize; 3], threads: usize) -> Self {
        let size = |n: usize| u32::try_from(n).expect("a grid fits 32 bits");
        let (grid, block) = (grid.map(size), [size(threads), 1, 1]);
        Self { op: "".into(), kernel, grid, block, shared_bytes: 0, words: Vec::new(), sizes: Vec::new() }
    }

    /// As a part of the op of that name.
    pub fn of(mut self, op: &Arc<str>) -> Self {
        self.op = op.clone();
        self
    }

    /// Op, kernel and shapes, for errors.
    pub fn describe(&self) -> String {
        let shape = |[x, y, z]: [u32; 3]| format!("{x}x{y}x{z}");
        let (grid, block) = (shape(self.grid), shape(self.block));
        format!(
            "`{}`: kernel {} (grid {grid}, block {block}, {} bytes of shared memory)",
            self.op, self.kernel.name, self.shared_bytes
        )
    }

    /// With dynamic shared memory.
    pub fn shared(mut self, bytes: usize) -> Self {
        self.shared_bytes = u32::try_from(bytes).expect("shared memory fits 32 bits");
        self
    }

    /// With one more argument, in the order of the kernel's parameters.
    pub fn arg(mut self, arg: impl Arg) -> Self {
        let (word, size) = arg.word();
        self.words.push(word);
        self.sizes.push(size);
        self
    }

    /// A size or count as a `u32` argument. Panics when it does not fit.
    pub fn size(self, size: usize) -> Self {
        self.arg(u32::try_from(size).expect("sizes of kernels fit 32 bits"))
    }

    /// The arguments' bits, one word each: a pointer to a word is a pointer to the argument.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The arguments' sizes in bytes.
    pub fn sizes(&self) -> &[u8] {
        &self.sizes
    }
}

/// What decides how work is cut into blocks, never an order of summation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Streaming multiprocessors: how many blocks keep the device busy.
    pub multiprocessors: usize,
    /// Shared memory that a block may ask for.
    pub shared_bytes: usize,
}

/// Shared memory that every block takes beside its own.
const RESERVED_BYTES: usize = 1024;

impl Capacity {
    /// Blocks of so much shared memory for which a multiprocessor has room: it has what its largest block may ask for, and
    /// what that takes beside it.
    pub fn room(&self, block_bytes: usize) -> usize {
        (self.shared_bytes + RESERVED_BYTES) / (block_bytes + RESERVED_BYTES)
    }

    /// The same where no more than [`VQ_SHARED_KB`] are shared memory.
    pub fn room_of_vq(&self, block_bytes: usize) -> usize {
        let most = (VQ_SHARED_KB << 10) - RESERVED_BYTES;
        Self { shared_bytes: self.shared_bytes.min(most), ..*self }.room(block_bytes)
    }

    /// Kilobytes of shared memory that a multiprocessor has at most.
    pub fn multiprocessor_kb(&self) -> usize {
        (self.shared_bytes + RESERVED_BYTES) >> 10
    }
}

/// Kilobytes of shared memory that kernels of the VQ models ask a multiprocessor for: about as many as their blocks fill
/// that have registers. What is left is a cache for the weights of convolutions.
pub const VQ_SHARED_KB: usize = 132;

/// Memory of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub free_bytes: u64,
    pub total_bytes: u64,
}

/// Seconds that `run` takes on a device at work, the median of some times: an idle card's clocks are low, and rise within a
/// tenth of a second or so of work.
pub fn seconds_at_work(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    const RISEN: Duration = Duration::from_millis(200);
    let began = Instant::now();
    while began.elapsed() < RISEN {
        run()?;
    }
    let mut times = [0.0; 5];
    for time in &mut times {
        let started = Instant::now();
        run()?;
        *time = started.elapsed().as_secs_f64();
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Memory that the host and the device both see.
#[derive(Clone, Copy, Debug)]
pub struct Mapped {
    pub device: Ptr,
    pub host: *mut u8,
}

/// A device.
pub trait Device: Send + Sync {
    /// The card, for people.
    fn describe(&self) -> String;

    fn capacity(&self) -> Capacity;

    fn memory(&self) -> Result<Memory>;

    /// `bytes` of device memory, zeroed, aligned to 256 bytes. Errors when there is no room.
    fn alloc(&self, bytes: usize) -> Result<Ptr>;

    /// `bytes` of host memory, zeroed, aligned to 256 bytes, that kernels write to directly and the host reads at any
    /// time.
    fn alloc_mapped(&self, bytes: usize) -> Result<Mapped>;

    /// Does something with the host's side of memory of `alloc_mapped`, which stays there meanwhile. Errors where a
    /// fault has taken the memory away.
    fn with_mapped(&self, work: &mut dyn FnMut()) -> Result<()> {
        work();
        Ok(())
    }

    /// Gives memory of `alloc` back.
    ///
    /// # Safety
    /// `ptr` came from this device's `alloc`, and no launch that is still to run uses it.
    unsafe fn free(&self, ptr: Ptr);

    /// Gives memory of `alloc_mapped` back.
    ///
    /// # Safety
    /// As for `free`; nobody reads the host's side any more.
    unsafe fn free_mapped(&self, mapped: Mapped);

    /// A stream of its own: what is enqueued on it runs in order, beside other streams.
    fn stream(&self) -> Result<Box<dyn Stream>>;

    /// Whether the time that its work takes means anything.
    fn keeps_time(&self) -> bool {
        false
    }

    /// Bytes per second that a copy in its memory reads and writes, measured now; `None` where that means nothing.
    fn copy_bandwidth(&self) -> Result<Option<f64>> {
        Ok(None)
    }

    /// A device to go on with where a fault ended this one, which is of no use any more, with all that was made
    /// on it; `None` while it works.
    fn renewed(&self) -> Result<Option<Arc<dyn Device>>> {
        Ok(None)
    }
}

/// Names a recorded list of launches of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording(pub usize);

/// Work in order. Dropping a stream waits for what runs.
pub trait Stream: Send {
    /// Enqueues a run of launches. It begins when all that was enqueued before has ended: a launch of it may begin before
    /// the one ahead of it has, but what came before the run is there for all.
    ///
    /// # Safety
    /// The arguments are what the kernels' parameters want, and their reads and writes lie in live memory.
    unsafe fn launch(&mut self, run: &[Launch]) -> Result<()>;

    /// Prepares launches to be replayed as one: on the driver, a captured CUDA graph.
    ///
    /// # Safety
    /// As for `launch`, at each replay.
    unsafe fn record(&mut self, launches: &[Launch]) -> Result<Recording>;

    /// Enqueues a recorded list `times` times, a run each. Returns before it has run; the host may stay a bounded number
    /// of replays ahead of the device.
    ///
    /// # Safety
    /// As for `launch`.
    unsafe fn replay(&mut self, recording: Recording, times: usize) -> Result<()>;

    /// Copies bytes to the device, behind what is enqueued. `bytes` may go when the call returns.
    ///
    /// # Safety
    /// `to` and the bytes behind it are live memory of the device.
    unsafe fn write(&mut self, to: Ptr, bytes: &[u8]) -> Result<()>;

    /// Waits for what is enqueued, then copies bytes from the device.
    ///
    /// # Safety
    /// `from` and the bytes behind it are live memory of the device.
    unsafe fn read(&mut self, from: Ptr, bytes: &mut [u8]) -> Result<()>;

    /// Waits for everything that is enqueued. Errors tell of kernels that failed since the last wait.
    fn synchronize(&mut self) -> Result<()>;
}

/// One buffer on a device, freed when dropped.
pub struct DeviceBuffer {
    device: Arc<dyn Device>,
    ptr: Ptr,
    len_bytes: usize,
}

impl DeviceBuffer {
    /// Zeroed memory; a buffer of no bytes still has an address.
    pub fn new(device: &Arc<dyn Device>, len_bytes: usize) -> Result<Self> {
        Ok(Self { ptr: device.alloc(len_bytes.max(1))?, device: device.clone(), len_bytes })
    }

    pub fn ptr(&self) -> Ptr {
        self.ptr
    }

    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // SAFETY: the address came from `alloc`; plans drop their stream, which waits, before their buffers.
        unsafe { self.device.free(self.ptr) }
    }
}

/// Words that the host sees too, freed when dropped.
pub struct MappedBuffer {
    device: Arc<dyn Device>,
    mapped: Mapped,
    len_bytes: usize,
}

// SAFETY: the host's side is reached through `&self` and `&mut self` only, word by word or while no launch runs.
unsafe impl Send for MappedBuffer {}

impl MappedBuffer {
    pub fn new(device: &Arc<dyn Device>, len_bytes: usize) -> Result<Self> {
        Ok(Self { mapped: device.alloc_mapped(len_bytes.max(1))?, device: device.clone(), len_bytes })
    }

    pub fn ptr(&self) -> Ptr {
        self.mapped.device
    }

    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// What the device has written by now, each word whole. Panics when the range does not fit, or cuts a word.
    pub fn peek(&self, offset_bytes: usize, bytes: &mut [u8]) -> Result<()> {
        assert!(offset_bytes + bytes.len() <= self.len_bytes, "the buffer has {} bytes", self.len_bytes);
        let (words, rest) = bytes.as_chunks_mut::<{ size_of::<u32>() }>();
        assert!(offset_bytes.is_multiple_of(size_of::<u32>()) && rest.is_empty(), "the buffer has words");
        self.device.with_mapped(&mut || {
            for (i, word) in words.iter_mut().enumerate() {
                // SAFETY: inside the allocation, which is aligned as `alloc_mapped` says. The device may be writing the
                // word: read at once, it is the one before or the one after.
                let found = unsafe { self.mapped.host.add(offset_bytes).cast::<u32>().add(i).read_volatile() };
                *word = found.to_ne_bytes();
            }
        })
    }

    /// Writes from the host, while the device does not use the buffer. Panics when the range does not fit.
    pub fn poke(&mut self, offset_bytes: usize, bytes: &[u8]) -> Result<()> {
        assert!(offset_bytes + bytes.len() <= self.len_bytes, "the buffer has {} bytes", self.len_bytes);
        self.device.with_mapped(&mut || {
            // SAFETY: inside the allocation, and `bytes` is the caller's own memory.
            unsafe { self.mapped.host.add(offset_bytes).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
        })
    }
}

impl Drop for MappedBuffer {
    fn drop(&mut self) {
        // SAFETY: as for `DeviceBuffer`.
        unsafe { self.device.free_mapped(self.mapped) }
    }
}
