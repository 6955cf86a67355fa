//! Matrices in the order in which tensor cores take them.
//!
//! `mma.m16n8k16` wants of a 16 x 16 tile of weights eight elements per lane. Laid out once at load, a tile is
//! 512 bytes in a row, sixteen per lane: every load is whole, aligned and in its order in memory, and odd
//! sizes are padded with zeros here rather than guarded in the kernels.

use half::bf16;
use rayon::prelude::*;

/// Rows and columns of a tile.
pub const TILE: usize = 16;

/// Elements of a tile.
pub const TILE_LEN: usize = TILE * TILE;

/// Elements that a (rows, columns) matrix takes as tiles.
pub fn len(rows: usize, columns: usize) -> usize {
    rows.next_multiple_of(TILE) * columns.next_multiple_of(TILE)
}

/// (N, K), row by row, to tiles [N / 16][K / 16][lane][8], zeros beyond the edges.
///
/// Lane 4 g + t holds rows g and g + 8, columns 2t, 2t + 1, 2t + 8 and 2t + 9: `a0` to `a3` of the PTX manual.
pub fn pack(values: &[bf16], n: usize, k: usize) -> Vec<bf16> {
    pack_with(n, k, |row, column| values[row * k + column])
}

/// The same of a matrix whose elements are given by a function of (row, column).
pub fn pack_with(n: usize, k: usize, at: impl Fn(usize, usize) -> bf16 + Sync) -> Vec<bf16> {
    let mut tiles = vec![bf16::ZERO; len(n, k)];
    let band = k.next_multiple_of(TILE) * TILE;
    tiles.par_chunks_mut(band.max(1)).enumerate().for_each(|(i, band)| {
        for (step, tile) in band.chunks_exact_mut(TILE_LEN).enumerate() {
            for (lane, elements) in tile.chunks_exact_mut(8).enumerate() {
                for (e, element) in elements.iter_mut().enumerate() {
                    let (row, column) = place(lane, e);
                    let (row, column) = (i * TILE + row, step * TILE + column);
                    if row < n && column < k {
                        *element = at(row, column);
                    }
                }
            }
        }
    });
    tiles
}

/// Row and column inside the tile of a lane's element.
fn place(lane: usize, element: usize) -> (usize, usize) {
    let (g, t) = (lane / 4, lane % 4);
    (g + element / 2 % 2 * 8, 2 * t + element % 2 + element / 4 * 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_has_its_place_and_the_rest_is_zero() {
        let (n, k) = (19, 37);
        let values: Vec<bf16> = (0..n * k).map(|i| bf16::from_f32(1.0 + (i % 200) as f32)).collect();
        let tiles = pack(&values, n, k);
        assert_eq!(tiles.len(), 32 * 48);
        let mut found = vec![bf16::ZERO; n * k];
        for (at, &value) in tiles.iter().enumerate() {
            let (tile, lane, element) = (at / TILE_LEN, at % TILE_LEN / 8, at % 8);
            let (row, column) = place(lane, element);
            let (row, column) = (tile / 3 * TILE + row, tile % 3 * TILE + column);
            match row < n && column < k {
                true => found[row * k + column] = value,
                false => assert_eq!(value, bf16::ZERO),
            }
        }
        assert_eq!(found, values);
    }

    #[test]
    fn a_lane_holds_the_elements_of_the_manual() {
        // Lane 5: g = 1, t = 1.
        let places: Vec<_> = (0..8).map(|e| place(5, e)).collect();
        assert_eq!(places, [(1, 2), (1, 3), (9, 2), (9, 3), (1, 10), (1, 11), (9, 10), (9, 11)]);
    }
}
