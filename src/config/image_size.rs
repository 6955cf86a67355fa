//! The image size that a checkpoint was trained for, as far as it tells.

use std::path::Path;

use super::Condition;
use crate::checkpoint::Checkpoint;

/// Sizes that released checkpoints carry in their names.
const NAMED: [usize; 3] = [256, 384, 512];

/// Side of the picture in pixels when none is asked for.
///
/// In this order: `image_size` in the metadata or config.json; the side of the latent grid there
/// (`block_size` codes) times `downsample_size`; 256, 384 or 512 in the file's name, not as a part of a
/// longer number; else 384 for class models and 512 for text models.
pub fn default_image_size(checkpoint: &Checkpoint, condition: &Condition, downsample_size: usize) -> usize {
    let number = |name: &str| checkpoint.metadata().get(name)?.trim().parse::<usize>().ok().filter(|&n| n > 0);
    let of_blocks = || {
        let block_size = number("block_size")?;
        let side = block_size.isqrt();
        (side * side == block_size).then(|| side.checked_mul(downsample_size)).flatten()
    };
    let of_name = || named_image_size(checkpoint.path());
    number("image_size").or_else(of_blocks).or_else(of_name).unwrap_or(match condition {
        Condition::Class { .. } => 384,
        Condition::Text { .. } => 512,
    })
}

/// The first of 256, 384 and 512 among the numbers of a file's name.
pub(crate) fn named_image_size(path: &Path) -> Option<usize> {
    let name = path.file_name()?.to_string_lossy();
    let numbers = name.split(|c: char| !c.is_ascii_digit());
    numbers.filter_map(|digits| digits.parse().ok()).find(|number| NAMED.contains(number))
}
