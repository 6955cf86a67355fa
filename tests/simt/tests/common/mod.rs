//! Buffers that are freed, and launches with arguments of any type.

use std::ffi::c_void;

use smalti_simt::{Build, Simt};

/// Both builds; none where there was no compiler, and that is said.
pub fn builds() -> Vec<(Build, Simt)> {
    let open = |build| match Simt::open(build) {
        Ok(simt) => Some((build, simt)),
        Err(reason) => {
            assert!(std::env::var("SMALTI_REQUIRE").as_deref() != Ok("all"), "may not be skipped: {reason}");
            eprintln!("skipped: {reason}");
            None
        }
    };
    [Build::Plain, Build::Check].into_iter().filter_map(open).collect()
}

/// Elements that any bits are a value of.
pub trait Bits: Copy {}
impl Bits for u16 {}
impl Bits for u32 {}
impl Bits for i32 {}
impl Bits for f32 {}

pub struct Buffer<'a, T> {
    simt: &'a Simt,
    ptr: *mut T,
    len: usize,
}

impl<'a, T: Bits> Buffer<'a, T> {
    /// Unwritten.
    pub fn new(simt: &'a Simt, len: usize) -> Self {
        Self { simt, ptr: simt.alloc(len * size_of::<T>()).cast(), len }
    }

    pub fn of(simt: &'a Simt, values: &[T]) -> Self {
        let buffer = Self::new(simt, values.len());
        // SAFETY: the buffer has this many elements, and is not among `values`.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), buffer.ptr, values.len()) };
        simt.host_wrote(buffer.ptr.cast(), size_of_val(values));
        buffer
    }

    pub fn get(&self) -> Vec<T> {
        // SAFETY: the buffer has this many elements, written when it was made.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len).to_vec() }
    }

    pub fn ptr(&self) -> *mut c_void {
        self.ptr.cast()
    }
}

impl<T> Drop for Buffer<'_, T> {
    fn drop(&mut self) {
        // SAFETY: it is from this executor, and the launches that used it have ended.
        unsafe { self.simt.free(self.ptr.cast()) }
    }
}

/// Launches a kernel of this crate's own with these values as its arguments.
#[macro_export]
macro_rules! launch {
    ($simt:expr, $kernel:expr, $grid:expr, $block:expr, $shared:expr, $cooperative:expr, $($arg:expr),*) => {
        // What the match is on lives as long as the match: so do the arguments.
        match (
            &$simt,
            ($kernel, $grid, $block, $shared, $cooperative),
            &mut [$(std::ptr::from_mut(&mut { $arg }).cast()),*],
        ) {
            // SAFETY: the values are those that the kernel takes, and they live.
            (simt, (kernel, grid, block, shared, cooperative), args) => unsafe {
                simt.launch(kernel, grid, block, shared, cooperative, args)
            },
        }
    };
}

/// One block of this many threads, or this many blocks.
pub fn x(count: u32) -> [u32; 3] {
    [count, 1, 1]
}

/// The bits of a bf16 with this value, which it has exactly.
pub fn bf16(value: f32) -> u16 {
    assert_eq!(value.to_bits() & 0xffff, 0);
    (value.to_bits() >> 16) as u16
}

/// a (16, K) * b (8, K)^T, of bf16.
pub fn product(a: &[u16], b: &[u16], k_size: usize) -> Vec<f32> {
    let value = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    let element = |i: usize| {
        let (row, column) = (i / 8, i % 8);
        (0..k_size).map(|k| value(a[row * k_size + k]) * value(b[column * k_size + k])).sum()
    };
    (0..16 * 8).map(element).collect()
}
