//! Matches `graph::ops::norm_rows`.

use super::{Context, product};
use crate::graph::ops;

pub(super) fn run(op: &ops::NormRows, cx: &Context<'_>) {
    product::normalize_into(cx, cx.buffer(op.out), op.x, op.norm, op.dim, op.eps);
}
