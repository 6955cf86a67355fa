//! Codes in a file: a safetensors tensor `codes` (pictures, down, across), int32, and text beside it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::files::write_atomically;
use crate::{Error, Result};

/// The codes of pictures of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes {
    /// (down, across) codes of each picture.
    pub latent: (usize, usize),
    /// Per picture, in raster order.
    pub pictures: Vec<Vec<u32>>,
    /// What made them: settings, checkpoint names.
    pub metadata: BTreeMap<String, String>,
}

impl Codes {
    /// Reads a file that [`Codes::write`] or another tool wrote: the tensor `codes`, or the only tensor, of
    /// shape (pictures, down, across) or (down, across), int32 or int64.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let wrong = |problem: String| Error::Format {
            path: path.to_path_buf(),
            format: "codes",
            problem,
            hint: "codes are a safetensors tensor `codes` (pictures, down, across) of int32".into(),
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| wrong(error.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
        let name = match file.names().as_slice() {
            [only] => (*only).to_string(),
            _ => "codes".to_string(),
        };
        let tensor = file.tensor(&name).map_err(|_| wrong("it has no tensor `codes`".into()))?;
        let values: Vec<i64> = match tensor.dtype() {
            Dtype::I32 => chunks(tensor.data()).map(|b| i64::from(i32::from_le_bytes(b))).collect(),
            Dtype::I64 => chunks(tensor.data()).map(i64::from_le_bytes).collect(),
            other => return Err(wrong(format!("`{name}` has type {other:?}"))),
        };
        // Neither empty nor lying: a shape with a 0 in it may claim any other size.
        let latent = match *tensor.shape() {
            [_, down, across] | [down, across] if !values.is_empty() => (down, across),
            ref shape => return Err(wrong(format!("`{name}` has shape {shape:?}"))),
        };
        let codes = values.into_iter().map(u32::try_from).collect::<Result<Vec<u32>, _>>();
        let codes = codes.map_err(|_| wrong(format!("`{name}` holds a negative or too large code")))?;
        Ok(Self {
            latent,
            pictures: codes.chunks_exact(latent.0 * latent.1).map(<[u32]>::to_vec).collect(),
            metadata: header.metadata().clone().unwrap_or_default().into_iter().collect(),
        })
    }

    /// Writes the file under a temporary name first, then renames it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let values: Vec<i32> = self.pictures.iter().flatten().map(|&code| code as i32).collect();
        let shape = vec![self.pictures.len(), self.latent.0, self.latent.1];
        let view = TensorView::new(Dtype::I32, shape, bytemuck::cast_slice(&values)).expect("values fill the shape");
        let metadata: HashMap<String, String> = self.metadata.clone().into_iter().collect();
        let bytes = safetensors::serialize([("codes", view)], Some(metadata)).expect("one small tensor");
        write_atomically(path, |writer| writer.write_all(&bytes))
    }
}

fn chunks<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> {
    data.chunks_exact(N).map(|bytes| bytes.try_into().expect("N bytes"))
}
