//! Every op on every executor against its plain f64 twin.
//!
//! One file per op, of the op's name. Cases are data: each runs on all instruction sets of this processor,
//! with one thread and with two, and all of those that add in the same order must agree bit for bit; then against the twin, within
//! the rounding model written beside each test; then each row alone against itself among the others.

mod common;

#[path = "ops/accept.rs"]
mod accept;
#[path = "ops/attention.rs"]
mod attention;
#[path = "ops/codebook_lookup.rs"]
mod codebook_lookup;
#[path = "ops/conv2d.rs"]
mod conv2d;
#[path = "ops/embed.rs"]
mod embed;
#[path = "ops/group_norm_stats.rs"]
mod group_norm_stats;
#[path = "ops/harness.rs"]
mod harness;
#[path = "ops/linear.rs"]
mod linear;
#[path = "ops/linear_residual.rs"]
mod linear_residual;
#[path = "ops/nearest_code.rs"]
mod nearest_code;
#[path = "ops/norm_gated_gelu.rs"]
mod norm_gated_gelu;
#[path = "ops/norm_linear.rs"]
mod norm_linear;
#[path = "ops/norm_logits.rs"]
mod norm_logits;
#[path = "ops/norm_qkv_rope.rs"]
mod norm_qkv_rope;
#[path = "ops/norm_rows.rs"]
mod norm_rows;
#[path = "ops/norm_swiglu.rs"]
mod norm_swiglu;
#[path = "ops/pixels_to_input.rs"]
mod pixels_to_input;
#[path = "ops/prefix_mean.rs"]
mod prefix_mean;
#[path = "ops/sample.rs"]
mod sample;
#[path = "ops/set_prefix.rs"]
mod set_prefix;
#[path = "ops/spatial_attention.rs"]
mod spatial_attention;
#[path = "ops/text_attention.rs"]
mod text_attention;
