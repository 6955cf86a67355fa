//! Pictures that come in: read, cropped when asked, checked against the VQ model.

use std::path::PathBuf;

use clap::Args;

use super::check_image_size;
use crate::image::{Rgb8, center_crop, read};
use crate::{Error, Result};

/// Pictures and how they are cut.
#[derive(Args, Clone, Debug)]
pub struct PictureArgs {
    /// PNG or JPEG files, all of one size
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Cut each picture's middle square and scale it to this side, as LlamaGen does
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    image_size: Option<usize>,
}

impl PictureArgs {
    /// Reads all pictures; all have one size that the model can encode.
    pub fn read(&self, downsample_size: usize) -> Result<Vec<Rgb8>> {
        if let Some(size) = self.image_size {
            check_image_size(size, downsample_size)?;
        }
        let mut pictures: Vec<Rgb8> = Vec::with_capacity(self.images.len());
        for path in &self.images {
            let picture = read(path)?;
            let picture = match self.image_size {
                Some(size) => center_crop(&picture, size)?,
                None => picture,
            };
            let size = |picture: &Rgb8| format!("{}x{} pixels", picture.width(), picture.height());
            let sides = [picture.width(), picture.height()];
            let expected = match pictures.first() {
                _ if sides.iter().any(|side| !side.is_multiple_of(downsample_size)) => {
                    format!("width and height divisible by {downsample_size}, the VQ model's down-sampling")
                }
                Some(first) if [first.width(), first.height()] != sides => {
                    format!("{}, the size of the first picture", size(first))
                }
                _ => {
                    pictures.push(picture);
                    continue;
                }
            };
            let fitting = (sides[0].min(sides[1]) / downsample_size).max(1) * downsample_size;
            return Err(Error::Mismatch {
                what: path.display().to_string(),
                expected,
                found: size(&picture),
                hint: format!("--image-size {fitting} takes the middle of each picture at that size"),
            });
        }
        Ok(pictures)
    }

    /// The files' names without folders.
    pub fn names(&self) -> Vec<String> {
        self.images.iter().filter_map(|path| super::parameters::file_name(path)).collect()
    }
}
