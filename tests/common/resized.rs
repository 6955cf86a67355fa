//! A device that says it has another number of multiprocessors: work is cut otherwise, and results must not differ.

use std::sync::Arc;

use smalti::Result;
use smalti::backend::cuda::device::{Capacity, Device, Mapped, Memory, Ptr, Stream};

pub struct Resized {
    pub device: Arc<dyn Device>,
    pub multiprocessors: usize,
}

impl Device for Resized {
    fn describe(&self) -> String {
        format!("{} as of {} multiprocessors", self.device.describe(), self.multiprocessors)
    }

    fn capacity(&self) -> Capacity {
        Capacity { multiprocessors: self.multiprocessors, ..self.device.capacity() }
    }

    fn memory(&self) -> Result<Memory> {
        self.device.memory()
    }

    fn alloc(&self, bytes: usize) -> Result<Ptr> {
        self.device.alloc(bytes)
    }

    fn alloc_mapped(&self, bytes: usize) -> Result<Mapped> {
        self.device.alloc_mapped(bytes)
    }

    fn with_mapped(&self, work: &mut dyn FnMut()) -> Result<()> {
        self.device.with_mapped(work)
    }

    unsafe fn free(&self, ptr: Ptr) {
        // SAFETY: the caller's word, and so below.
        unsafe { self.device.free(ptr) }
    }

    unsafe fn free_mapped(&self, mapped: Mapped) {
        unsafe { self.device.free_mapped(mapped) }
    }

    fn stream(&self) -> Result<Box<dyn Stream>> {
        self.device.stream()
    }
}
