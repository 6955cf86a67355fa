//! Where results go: pictures into one file or a folder, and the checks before anything is computed.

use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::parameters::Fields;
use super::{tell, wrong_option};
use crate::image::{Rgb8, grid, write_png};
use crate::{Error, Result};

/// Pictures per row of a grid of samples, and the black pixels between pictures.
pub const COLUMNS: usize = 4;
pub const PADDING: usize = 2;

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
    /// A folder is what is one already, or ends with a slash; the latter is made with the first picture.
    pub fn check(path: &Path) -> Result<Self> {
        let ends_with_slash = path.as_os_str().to_string_lossy().ends_with(std::path::is_separator);
        if path.is_dir() {
            writable(path)?;
        } else if ends_with_slash {
            // Without the slash: a file is there only by its own name.
            let there = path.components().as_path().ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
            check_folder("output", path, there)?;
        } else {
            check_file("output", path)?;
            return Ok(Self::Grid(path.to_path_buf()));
        }
        Ok(Self::Folder(path.to_path_buf()))
    }

    /// Whether pictures with these numbers would be written over the file at `path`.
    pub fn holds(&self, path: &Path, numbers: impl IntoIterator<Item = u64>) -> bool {
        match self {
            Self::Grid(grid) => same_file(grid, path),
            Self::Folder(folder) => {
                let name = fs::canonicalize(path).ok().and_then(|path| Some(path.file_name()?.to_os_string()));
                let names = [name.as_deref(), path.file_name()];
                let named = |number: &u64| names.contains(&Some(numbered(*number).as_ref()));
                numbers.into_iter().filter(named).any(|number| same_file(&folder.join(numbered(number)), path))
            }
        }
    }
}

/// Whether two paths lead to one file, there or not, however they are spelled.
fn same_file(a: &Path, b: &Path) -> bool {
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(fs::canonicalize(folder).ok()?.join(path.file_name()?))
    };
    let one_place = place(a).is_some_and(|a| place(b) == Some(a));
    let one_file = fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b));
    a == b || one_place || one_file
}

/// A picture's name in a folder.
fn numbered(number: u64) -> String {
    format!("{number:06}.png")
}

/// Puts pictures where they go, one by one: a folder's at once, a grid's when all are there. Whatever the order in
/// which they are done, files are told in that in which they were asked for.
pub struct Gallery {
    output: Output,
    columns: usize,
    /// Show what is written in the terminal too.
    show: bool,
    held: Vec<(u64, Rgb8)>,
    /// Files that were written and not told, as one before them is not done.
    untold: BTreeMap<usize, PathBuf>,
    /// The place of the file to tell next.
    next: usize,
}

impl Gallery {
    /// A grid gets `columns` pictures per row. With `show`, what is written is shown in the terminal as well.
    pub fn new(output: Output, columns: usize, show: bool) -> Self {
        let show = show && std::io::stdout().is_terminal();
        Self { output, columns, show, held: Vec::new(), untold: BTreeMap::new(), next: 0 }
    }

    /// Takes the picture that was asked for at `place`, from 0, with its number; `fields` is its text when it gets a
    /// file of its own.
    pub fn put(&mut self, place: usize, number: u64, picture: Rgb8, fields: impl FnOnce() -> Fields) -> Result<()> {
        let Output::Folder(folder) = &self.output else {
            self.held.push((number, picture));
            return Ok(());
        };
        fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
        let path = folder.join(numbered(number));
        self.write(&path, &picture, &fields())?;
        self.untold.insert(place, path);
        while let Some(path) = self.untold.remove(&self.next) {
            tell(path.display())?;
            self.next += 1;
        }
        Ok(())
    }

    /// Writes the grid, in the order of the numbers, with its text.
    pub fn finish(mut self, fields: impl FnOnce() -> Fields) -> Result<()> {
        let Output::Grid(path) = &self.output else { return Ok(()) };
        self.held.sort_by_key(|(number, _)| *number);
        let pictures: Vec<Rgb8> = self.held.drain(..).map(|(_, picture)| picture).collect();
        self.write(path, &grid(&pictures, self.columns, PADDING)?, &fields())?;
        tell(path.display())
    }

    /// Writes a picture with its text.
    fn write(&self, path: &Path, picture: &Rgb8, fields: &Fields) -> Result<()> {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        write_png(path, picture, &fields)?;
        if self.show {
            show(picture);
        }
        Ok(())
    }
}

/// Shows a picture in the terminal, two pixels to a character.
fn show(picture: &Rgb8) {
    let (width, height) = (picture.width() as u32, picture.height() as u32);
    let Some(image) = image::RgbImage::from_raw(width, height, picture.pixels().to_vec()) else { return };
    // Asking a terminal for its graphics waits for an answer that not all of them give.
    let config = viuer::Config { absolute_offset: false, use_kitty: false, use_iterm: false, ..Default::default() };
    // The file is what was asked for; a terminal that cannot show it is no failure.
    viuer::print(&image.into(), &config).ok();
}

/// Checks that a file can be written where `path` says, and writes nothing there. `option` names the flag.
pub fn check_file(option: &'static str, path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err(wrong_option(option, path.display(), "a file, found a folder", ""));
        }
        // A device or a pipe is written to as it is.
        Ok(found) if !found.is_file() => return Ok(()),
        _ => {}
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    check_folder(option, path, folder)
}

/// Checks that `folder`, into which `path` goes, is one and lets us write.
fn check_folder(option: &'static str, path: &Path, folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return writable(folder);
    }
    let (what, hint) = match folder.exists() {
        true => ("a folder above it, found the file", ""),
        false => ("a folder that is there, found no", "make the folder first"),
    };
    Err(wrong_option(option, path.display(), format!("{what} {}", folder.display()), hint))
}

fn writable(folder: &Path) -> Result<()> {
    tempfile::NamedTempFile::new_in(folder).map(drop).map_err(Error::io("write into", folder))
}
