//! Writing files so that nobody ever sees half of one.
//!
//! Depends on [`crate::error`] alone; every file that smalti writes goes through [`write_atomically`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes `path` whole or not at all.
///
/// `write` fills a temporary file in the same directory, which then takes the place of `path`. A file that
/// was there before stays as it is until then. After any failure, a full disk included, nothing new is left.
/// A link is followed, so that its target is replaced; a device or a pipe (`/dev/null`) is written to
/// directly, as it has to stay what it is.
///
/// # Errors
/// [`Error::Io`] with the directory where that is at fault, else with `path`.
pub(crate) fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err(Error::io("write", path)(io::ErrorKind::IsADirectory.into()));
        }
        Ok(found) if !found.is_file() => return write_in_place(path, write),
        _ => (),
    }
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    // Opened here and not by `tempfile` so that permissions are those of any new file and errors are plain.
    let mut temporary = tempfile::Builder::new()
        .prefix(".smalti-")
        .suffix(".tmp")
        .make_in(&directory, |name| OpenOptions::new().write(true).create_new(true).open(name))
        .map_err(Error::io("create a file in the directory", &directory))?;
    fill(temporary.as_file_mut(), write).map_err(Error::io("write", path))?;
    // Dropping the error drops the temporary file, and that removes it.
    temporary.persist(&target).map_err(|error| Error::io("write", path)(error.error))?;
    Ok(())
}

fn write_in_place(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut file = OpenOptions::new().write(true).open(path).map_err(Error::io("open", path))?;
    let mut writer = BufWriter::new(&mut file);
    write(&mut writer).and_then(|()| writer.flush()).map_err(Error::io("write", path))
}

fn fill(file: &mut File, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 16, &mut *file);
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    // Some file systems tell only here that the disk is full.
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_the_file_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        write_atomically(&path, |w| w.write_all(b"one")).unwrap();
        write_atomically(&path, |w| w.write_all(b"two")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(directory.path()), ["a.txt"]);
    }

    #[test]
    fn a_failure_keeps_the_old_file_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        write_atomically(&path, |w| w.write_all(b"old")).unwrap();
        let error = write_atomically(&path, |w| {
            w.write_all(&[0; 100_000])?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert!(matches!(&error, Error::Io { path: p, .. } if *p == path), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(directory.path()), ["a.txt"]);
    }

    #[test]
    fn a_directory_in_the_way_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = write_atomically(directory.path(), |w| w.write_all(b"x")).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if path == directory.path()), "{error}");
        assert_eq!(names(directory.path()), Vec::<String>::new());
    }

    #[cfg(unix)]
    #[test]
    fn follows_links_and_keeps_devices() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&real, b"old").unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        write_atomically(&link, |w| w.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

        write_atomically(Path::new("/dev/null"), |w| w.write_all(b"x")).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    /// `/dev/full` answers every write as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_told() {
        let full = Path::new("/dev/full");
        let error = write_atomically(full, |w| w.write_all(b"x")).unwrap_err();
        assert!(
            matches!(&error, Error::Io { path, source, .. }
            if path == full && source.kind() == io::ErrorKind::StorageFull),
            "{error}"
        );
    }
}
