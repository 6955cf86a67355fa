//! Codes in a file: a safetensors tensor `codes` (pictures, down, across), int32, and text beside it.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::json;

use crate::checkpoint::framed_header;
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

    /// Writes the file under a temporary name first, then renames it. Equal codes make equal files: the text is in the
    /// order of its names.
    ///
    /// # Panics
    ///
    /// When a picture has another number of codes than `latent` says.
    pub fn write(&self, path: &Path) -> Result<()> {
        let each = self.latent.0 * self.latent.1;
        assert!(self.pictures.iter().all(|picture| picture.len() == each), "pictures of {each} codes");
        let values: Vec<u8> = self.pictures.iter().flatten().flat_map(|&code| (code as i32).to_le_bytes()).collect();
        let shape = [self.pictures.len(), self.latent.0, self.latent.1];
        let codes = json!({ "dtype": "I32", "shape": shape, "data_offsets": [0, values.len()] });
        let header = match self.metadata.is_empty() {
            true => json!({ "codes": codes }),
            false => json!({ "__metadata__": self.metadata, "codes": codes }),
        };
        write_atomically(path, |writer| {
            writer.write_all(&framed_header(&header))?;
            writer.write_all(&values)
        })
    }
}

fn chunks<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> {
    data.chunks_exact(N).map(|bytes| bytes.try_into().expect("N bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_codes_make_equal_files() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["Software", "parameters", "a", "b", "c", "d"];
        let metadata: BTreeMap<_, _> = names.map(|name| (name.to_string(), format!("of {name}"))).into();
        let codes = Codes { latent: (1, 2), pictures: vec![vec![0, 255], vec![16383, 7]], metadata };
        let files: Vec<Vec<u8>> = (0..8)
            .map(|number| {
                let path = folder.path().join(number.to_string());
                codes.write(&path).unwrap();
                assert_eq!(Codes::read(&path).unwrap(), codes);
                std::fs::read(&path).unwrap()
            })
            .collect();
        assert!(files.iter().all(|file| *file == files[0]));
        let header = SafeTensors::read_metadata(&files[0]).unwrap().0;
        assert_eq!((8 + header) % 64, 0, "the codes can be used in place");
    }
}
