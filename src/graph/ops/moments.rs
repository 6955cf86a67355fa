//! Mean and variance of each channel over small patches of a map: what `conv2d` leaves of its result and
//! `group_norm_stats` joins, so that a GPU reads no map for its statistics alone.

use super::Kernel;

/// Rows and columns of a patch.
const PATCH: (usize, usize) = (2, 16);

/// How a map is cut into patches.
///
/// Where several outputs stand over one pixel of a convolution's input, those in one place over it, a phase, are cut
/// as a map of their own: pixel (y, x) of phase (down, across) is pixel (repeat * y + down, repeat * x + across) of
/// the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patches {
    /// Rows and columns of a phase
    pub size: (usize, usize),
    /// Phases along one side
    pub repeat: usize,
}

impl Patches {
    /// Those of the result of a convolution of a map of `size`.
    pub fn of(kernel: Kernel, size: (usize, usize)) -> Self {
        Self { size: kernel.grid(size), repeat: kernel.repeat() }
    }

    /// Pixels of the map.
    pub fn pixels(&self) -> usize {
        self.size.0 * self.size.1 * self.repeat * self.repeat
    }

    /// Patches of the map, phase by phase, each row by row.
    pub fn count(&self) -> usize {
        self.repeat * self.repeat * self.grid().0 * self.grid().1
    }

    /// Pixels of the first `patches` of them.
    pub fn pixels_before(&self, patches: usize) -> usize {
        let (down, across) = self.grid();
        let (phase, row, column) = (patches / (down * across), patches / across % down, patches % across);
        let rows = PATCH.0.min(self.size.0 - PATCH.0 * row);
        (phase * self.size.0 + PATCH.0 * row) * self.size.1 + rows * PATCH.1 * column
    }

    /// Where the pixels of a patch lie in the map: row after row of them, each the number of its first pixel and how
    /// many there are, [`Patches::repeat`] apart.
    pub fn rows(&self, patch: usize) -> impl Iterator<Item = Run> + use<> {
        let Self { size: (height, width), repeat } = *self;
        let (down, across) = self.grid();
        let (phase, row, column) = (patch / (down * across), patch / across % down, patch % across);
        let (columns, first) = (PATCH.1.min(width - PATCH.1 * column), PATCH.1 * column);
        (PATCH.0 * row..height.min(PATCH.0 * (row + 1))).map(move |y| {
            let row = (repeat * y + phase / repeat) * width * repeat;
            Run { first: row + repeat * first + phase % repeat, count: columns }
        })
    }

    /// Rows of patches of a phase, and patches in each.
    fn grid(&self) -> (usize, usize) {
        (self.size.0.div_ceil(PATCH.0), self.size.1.div_ceil(PATCH.1))
    }
}

/// Pixels of one row of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub first: usize,
    pub count: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_is_in_one_patch() {
        for size in [(1, 1), (2, 16), (3, 17), (5, 40), (24, 24)] {
            for repeat in [1, 2] {
                let patches = Patches { size, repeat };
                let mut seen = vec![0; patches.pixels()];
                for patch in 0..patches.count() {
                    let mut pixels = 0;
                    for run in patches.rows(patch) {
                        (0..run.count).for_each(|i| seen[run.first + i * repeat] += 1);
                        pixels += run.count;
                    }
                    assert_eq!(patches.pixels_before(patch + 1) - patches.pixels_before(patch), pixels, "{patches:?}");
                }
                assert!(seen.iter().all(|&times| times == 1), "{patches:?} covers {seen:?}");
                assert_eq!(patches.pixels_before(patches.count()), patches.pixels());
            }
        }
    }
}
