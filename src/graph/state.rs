//! The two tables that a step is driven by. They live on the device and advance there.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

/// Stands for "no slot" in [`Row::slot`]: the row fills a step up to a size that was laid out, or its window ends
/// behind the picture, and nothing becomes of it.
pub const NO_SLOT: u32 = u32::MAX;

/// Stands for "no row": in [`Draw::uncond_row`] there is no guidance, in [`Draw::cond_row`] nothing is drawn.
pub const NO_ROW: u32 = u32::MAX;

/// One row of a step: the token at `position` of the sequence in `slot`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Row {
    /// Which sequence's cache.
    pub slot: u32,
    /// 0 is the condition (its cache row is the prefix row), 1 + t the image token t. In a pass over texts the
    /// place within the text.
    pub position: u32,
    /// The class label at position 0, the code at any other; in a pass over texts the text's token.
    pub token: u32,
    /// How many rows of the slot's cache no launch of the run writes, from row 0 on: a kernel may read them while the
    /// launches before it are still at work. 0, or any number that is less, is true, too.
    pub settled: u32,
}

impl Row {
    /// The rows of row `r`'s sequence, in a pass over texts: they follow one another, from position 0 on.
    ///
    /// Panics when the table does not say so.
    pub fn sequence(rows: &[Self], r: usize) -> Range<usize> {
        let first = r.checked_sub(rows[r].position as usize).filter(|&first| rows[first].position == 0);
        let first = first.unwrap_or_else(|| panic!("row {r} has no row 0 before it: {:?}", rows[r]));
        let end = rows[r + 1..].iter().position(|row| row.position == 0);
        first..end.map_or(rows.len(), |after| r + 1 + after)
    }
}

/// One token to draw: the logits of one row, or of two under guidance, and all that the draw depends on.
///
/// In one run no two draws may name the same row or the same place for their code: they are done side by side.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Draw {
    /// Noise key.
    pub seed: u64,
    /// The picture's number within its request; part of the noise counter.
    pub image: u64,
    /// The row whose logits are conditional.
    pub cond_row: u32,
    /// The row whose logits are unconditional, or [`NO_ROW`]: then there is no guidance.
    pub uncond_row: u32,
    /// Token number 0..N-1 within the picture; part of the noise counter, and where the code goes.
    pub token: u32,
    /// Row of the `codes` buffer that this picture's codes go to.
    pub picture: u32,
    pub cfg_scale: f32,
    /// At least 1e-5.
    pub temperature: f32,
    /// In (0, 1].
    pub top_p: f32,
    /// 1..=V; V keeps all.
    pub top_k: u32,
    /// 1: no noise; 0: Gumbel noise.
    pub greedy: u32,
    /// Token from which on nothing is guided; 0: guidance goes on to the end.
    pub guidance_end: u32,
    /// W: at the first draw of a window, how many draws it has, one behind the other and for tokens that follow one
    /// another; else 0.
    pub window: u32,
    /// How what nobody has drawn yet is guessed, a [`Guess`](super::ops::Guess) as a number.
    pub guess: u32,
}

impl Draw {
    /// The rows that it draws from: one, two under guidance, none where there is nothing to draw.
    pub fn rows(&self) -> impl Iterator<Item = usize> + use<> {
        [self.cond_row, self.uncond_row].into_iter().filter(|&row| row != NO_ROW).map(|row| row as usize)
    }

    /// The row to be guided away from.
    pub fn guided_by(&self) -> Option<usize> {
        let ended = self.guidance_end != 0 && self.token >= self.guidance_end;
        (self.uncond_row != NO_ROW && !ended).then_some(self.uncond_row as usize)
    }
}

const _: () = assert!(size_of::<Row>() == 16 && size_of::<Draw>() == 64);
