//! Where pictures go: one file, or a folder with one file per picture.

use std::path::{Path, PathBuf};

use crate::image::{Rgb8, grid, write_png};
use crate::{Error, Result};

/// Pictures per row of a grid, and the black pixels around them.
const COLUMNS: usize = 4;
const PADDING: usize = 2;

/// A checked place for pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// All in one picture.
    Grid(PathBuf),
    /// One file each, named by the picture's number.
    Folder(PathBuf),
}

impl Output {
    /// Tells file from folder and checks, before any work is done, that it can be written.
    ///
    /// A folder is what is one already, or ends with a slash; the latter is made.
    pub fn check(path: &Path) -> Result<Self> {
        let ends_with_slash = path.as_os_str().to_string_lossy().ends_with(std::path::MAIN_SEPARATOR);
        if ends_with_slash {
            std::fs::create_dir_all(path).map_err(Error::io("make the folder", path))?;
        }
        if path.is_dir() {
            writable(path)?;
            return Ok(Self::Folder(path.to_path_buf()));
        }
        check_file(path)?;
        Ok(Self::Grid(path.to_path_buf()))
    }

    /// Writes the pictures; each with its text, or the grid with `text`. Returns the files.
    pub fn write(
        &self,
        pictures: &[(u64, Rgb8)],
        text: impl Fn(Option<u64>) -> Vec<(String, String)>,
    ) -> Result<Vec<PathBuf>> {
        let write = |path: &Path, picture: &Rgb8, fields: Vec<(String, String)>| {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            write_png(path, picture, &fields)
        };
        match self {
            Self::Grid(path) => {
                let all: Vec<Rgb8> = pictures.iter().map(|(_, picture)| picture.clone()).collect();
                write(path, &grid(&all, COLUMNS, PADDING)?, text(None))?;
                Ok(vec![path.clone()])
            }
            Self::Folder(folder) => pictures
                .iter()
                .map(|(number, picture)| {
                    let path = folder.join(format!("{number:06}.png"));
                    write(&path, picture, text(Some(*number)))?;
                    Ok(path)
                })
                .collect(),
        }
    }
}

/// Checks that a file can be written where `path` says, and writes nothing there.
pub fn check_file(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    writable(folder)
}

fn writable(folder: &Path) -> Result<()> {
    tempfile::NamedTempFile::new_in(folder).map(drop).map_err(Error::io("write into", folder))
}
