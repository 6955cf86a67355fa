//! The rows that a strip's next outputs see: a few of the map, normalized, activated, rounded, with the zero border.

use std::marker::PhantomData;

use crate::backend::cpu::conv2d::load::Source;
use crate::backend::cpu::simd::{LANES, Simd};

/// The ring, in pairs of channels.
#[derive(Clone, Copy)]
pub struct Ring {
    /// A power of two.
    rows: usize,
    /// From pixel to pixel, with room for whole vectors.
    pub pixel: usize,
    /// From row to row.
    row: usize,
}

impl Ring {
    /// Of at least `rows` rows of `width` pixels.
    pub fn new(rows: usize, width: usize, channels: usize) -> Self {
        // An odd number of cache lines, so that neighbours do not evict each other from the first-level cache.
        let pixel = (channels / 2).next_multiple_of(LANES) | LANES;
        Self { rows: rows.next_power_of_two(), pixel, row: width * pixel }
    }

    /// Pairs of all rows.
    pub fn len(self) -> usize {
        self.rows * self.row
    }

    /// Where row `i` of those that the strip sees lies.
    #[inline(always)]
    pub fn at(self, i: usize) -> usize {
        (i & (self.rows - 1)) * self.row
    }
}

/// Rows on their way into the ring, 32 channels at a time.
pub struct Loader<'a, S> {
    source: &'a Source,
    ring: Ring,
    x: *mut u32,
    /// The first pixel that the strip sees.
    corner: (isize, isize),
    /// Pixels of a row.
    width: usize,
    channels: usize,
    /// Where it is: row of those that the strip sees, pixel, channel.
    row: usize,
    pixel: usize,
    channel: usize,
    /// That pixel, if it is one of the map.
    from: Option<*const f32>,
    to: *mut u16,
    /// The row that it is not to begin yet.
    end: usize,
    /// Pieces of 32 channels at a step.
    pieces: usize,
    simd: PhantomData<S>,
}

impl<'a, S: Simd> Loader<'a, S> {
    pub fn new(
        source: &'a Source,
        ring: Ring,
        x: *mut u32,
        corner: (isize, isize),
        (width, channels): (usize, usize),
    ) -> Self {
        let (from, to) = (source.pixel(corner.0, corner.1), x.cast());
        let (row, pixel, channel, end, pieces, simd) = (0, 0, 0, 0, 0, PhantomData);
        Self { source, ring, x, corner, width, channels, row, pixel, channel, from, to, end, pieces, simd }
    }

    /// Loads all that is left before row `end`.
    ///
    /// # Safety
    /// The ring has room, the strip sees as many rows.
    #[inline(always)]
    pub unsafe fn finish(&mut self) {
        while self.row < self.end {
            // SAFETY: the caller's.
            unsafe { self.load() }
        }
    }

    /// Lets steps bring what is left before row `end`, if there are as many.
    pub fn spread(&mut self, end: usize, steps: usize) {
        self.end = end;
        let rows = end.saturating_sub(self.row);
        self.pieces = (rows * self.width * self.channels.div_ceil(2 * LANES)).div_ceil(steps);
    }

    /// The pieces of a step.
    ///
    /// # Safety
    /// As [`Loader::finish`].
    #[inline(always)]
    pub unsafe fn step(&mut self) {
        for _ in 0..self.pieces {
            if self.row < self.end {
                // SAFETY: the caller's.
                unsafe { self.load() }
            }
        }
    }

    /// The next piece.
    #[inline(always)]
    unsafe fn load(&mut self) {
        // SAFETY: the ring has this row and pixel, with room for whole vectors.
        unsafe {
            self.vector(self.channel);
            if self.channel + LANES < self.channels {
                self.vector(self.channel + LANES);
            }
        }
        self.channel += 2 * LANES;
        if self.channel >= self.channels {
            self.next_pixel();
        }
    }

    #[inline(always)]
    unsafe fn vector(&mut self, channel: usize) {
        // SAFETY: the caller's.
        unsafe {
            let v = match self.from {
                Some(pixel) => self.source.vector::<S>(pixel, channel),
                None => S::splat(0.0),
            };
            S::store_bf16(self.to.add(channel), v);
        }
    }

    #[inline(always)]
    fn next_pixel(&mut self) {
        (self.channel, self.pixel) = (0, self.pixel + 1);
        self.to = self.to.wrapping_add(2 * self.ring.pixel);
        if self.pixel == self.width {
            (self.pixel, self.row) = (0, self.row + 1);
            self.to = self.x.wrapping_add(self.ring.at(self.row)).cast();
        }
        self.from = self.source.pixel(self.corner.0 + self.row as isize, self.corner.1 + self.pixel as isize);
    }
}
