//! Several pictures in one.

use super::{Rgb8, same_size, values_of};
use crate::error::{Error, Result};

/// Pictures of one size laid out row by row on black, as torchvision's `make_grid(nrow = columns)` does.
///
/// `padding` pixels lie between the pictures and around all of them. Where there are fewer pictures than
/// `columns`, the grid is only as wide as they need; empty places of the last row stay black; one
/// picture alone comes back as it is, without padding. LlamaGen's samples have 4 columns and padding 2.
///
/// # Errors
/// [`Error::Mismatch`] if there is no picture, no column, the sizes differ or the grid cannot be held.
pub fn grid(pictures: &[Rgb8], columns: usize, padding: usize) -> Result<Rgb8> {
    let Some(first) = pictures.first() else {
        return Err(nothing("pictures of a grid"));
    };
    if columns == 0 {
        return Err(nothing("columns of a grid"));
    }
    for picture in pictures {
        same_size("picture of a grid", first, picture)?;
    }
    if pictures.len() == 1 {
        return Ok(first.clone());
    }
    let columns = columns.min(pictures.len());
    let rows = pictures.len().div_ceil(columns);
    let side =
        |count: usize, pixels: usize| count.saturating_mul(pixels.saturating_add(padding)).saturating_add(padding);
    let mut grid = Rgb8::filled(side(columns, first.width), side(rows, first.height), [0; 3])?;
    for (place, picture) in pictures.iter().enumerate() {
        let (row, column) = (place / columns, place % columns);
        grid.paste(picture, padding + column * (first.width + padding), padding + row * (first.height + padding));
    }
    Ok(grid)
}

/// Two pictures of one height beside each other with `gap` black pixels between them.
///
/// # Errors
/// [`Error::Mismatch`] if the heights differ or the result cannot be held.
pub fn side_by_side(left: &Rgb8, right: &Rgb8, gap: usize) -> Result<Rgb8> {
    if left.height != right.height {
        return Err(Error::Mismatch {
            what: "pictures side by side".into(),
            expected: format!("one height, {} pixels", left.height),
            found: right.height.to_string(),
            hint: "crop or resize both pictures to one size".into(),
        });
    }
    let width = left.width.saturating_add(gap).saturating_add(right.width);
    values_of(width, left.height, 1)?;
    let mut both = Rgb8::filled(width, left.height, [0; 3])?;
    both.paste(left, 0, 0);
    both.paste(right, left.width + gap, 0);
    Ok(both)
}

fn nothing(what: &str) -> Error {
    Error::Mismatch { what: what.into(), expected: "at least 1".into(), found: "0".into(), hint: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(level: u8) -> Rgb8 {
        Rgb8::filled(1, 1, [level; 3]).unwrap()
    }

    /// The first channel, row by row.
    fn levels(picture: &Rgb8) -> Vec<Vec<u8>> {
        (0..picture.height()).map(|y| picture.row(y).iter().step_by(3).copied().collect()).collect()
    }

    #[test]
    fn rows_fill_in_order_and_empty_places_are_black() {
        let found = grid(&[dot(1), dot(2), dot(3), dot(4), dot(5)], 3, 1).unwrap();
        let expected = [[0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 2, 0, 3, 0], [0; 7], [0, 4, 0, 5, 0, 0, 0], [0; 7]];
        assert_eq!(levels(&found), expected);
    }

    #[test]
    fn fewer_pictures_than_columns_make_a_narrow_grid() {
        assert_eq!(levels(&grid(&[dot(1), dot(2)], 4, 0).unwrap()), [[1, 2]]);
        let two = grid(&vec![Rgb8::filled(3, 5, [9; 3]).unwrap(); 2], 4, 2).unwrap();
        assert_eq!((two.width(), two.height()), (2 + 3 + 2 + 3 + 2, 2 + 5 + 2));
    }

    #[test]
    fn a_single_picture_gets_no_padding() {
        assert_eq!(grid(&[dot(7)], 4, 2).unwrap(), dot(7));
    }

    #[test]
    fn what_cannot_be_laid_out_is_refused() {
        assert!(grid(&[], 4, 2).is_err());
        assert!(grid(&[dot(1)], 0, 2).is_err());
        assert!(grid(&[dot(1), Rgb8::filled(1, 2, [0; 3]).unwrap()], 4, 2).is_err());
        assert!(grid(&[dot(1), dot(2)], 4, usize::MAX / 2).is_err());
        assert!(side_by_side(&dot(1), &Rgb8::filled(1, 2, [0; 3]).unwrap(), 0).is_err());
        assert!(side_by_side(&dot(1), &dot(2), usize::MAX).is_err());
    }

    #[test]
    fn side_by_side_keeps_the_gap() {
        assert_eq!(levels(&side_by_side(&dot(1), &dot(2), 2).unwrap()), [[1, 0, 0, 2]]);
        let wide = Rgb8::filled(3, 1, [5; 3]).unwrap();
        assert_eq!(levels(&side_by_side(&dot(1), &wide, 0).unwrap()), [[1, 5, 5, 5]]);
    }
}
