//! What callers hand over: strings, lists, and structs of their size.

use std::ffi::{CStr, c_char};

use super::status::Failure;

/// A struct that begins with `struct_size`.
///
/// # Safety
///
/// Plain C data: every pattern of bits is a value of it, and its first field is a `usize`.
pub unsafe trait Extensible: Copy {
    /// With all defaults.
    fn with_defaults() -> Self;
}

/// Writes the defaults of a caller's struct, as much of it as the caller knows.
///
/// # Safety
///
/// `to` is null, or has `struct_size` bytes and is aligned.
pub unsafe fn write_defaults<T: Extensible>(to: *mut T, struct_size: usize) -> Result<(), Failure> {
    if to.is_null() || struct_size < size_of::<usize>() {
        return Err(Failure::argument("expected a struct and its size, found none"));
    }
    let defaults = T::with_defaults();
    let known = struct_size.min(size_of::<T>());
    // SAFETY: the caller's word for `struct_size` bytes; what is beyond our own struct becomes zero.
    unsafe {
        std::ptr::write_bytes(to.cast::<u8>(), 0, struct_size);
        std::ptr::copy_nonoverlapping((&raw const defaults).cast::<u8>(), to.cast::<u8>(), known);
        to.cast::<usize>().write(struct_size);
    }
    Ok(())
}

/// A caller's struct; fields that it does not have get their defaults.
///
/// # Safety
///
/// `from` is null, or points to as many bytes as its `struct_size` says.
pub unsafe fn read_struct<T: Extensible>(from: *const T, what: &str) -> Result<T, Failure> {
    if from.is_null() {
        return Err(Failure::argument(format!("{what}: expected a struct, found null")));
    }
    // SAFETY: the struct begins with its size.
    let struct_size = unsafe { from.cast::<usize>().read() };
    if struct_size < size_of::<usize>() || struct_size > 1 << 16 {
        let problem = format!("{what}: expected its struct_size, found {struct_size}; was it initialised?");
        return Err(Failure::argument(problem));
    }
    let mut value = T::with_defaults();
    let known = struct_size.min(size_of::<T>());
    // SAFETY: the caller's word for `struct_size` bytes, and any bytes are a value of the type.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut value).cast::<u8>(), known) };
    Ok(value)
}

/// A string that may be null.
///
/// # Safety
///
/// `text` is null, or ends with a zero.
pub unsafe fn optional_text(text: *const c_char, what: &str) -> Result<Option<String>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's word.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_str().map_err(|_| Failure::argument(format!("{what}: expected UTF-8, found other bytes")))?;
    Ok(Some(text.into()))
}

/// A list; null is an empty one.
///
/// # Safety
///
/// `items` is null, or points to `count` items.
pub unsafe fn list<'a, T>(items: *const T, count: usize, what: &str) -> Result<&'a [T], Failure> {
    if items.is_null() {
        return Ok(&[]);
    }
    if !items.is_aligned() || count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Failure::argument(format!("{what}: expected a list of {count}, found an address that is none")));
    }
    // SAFETY: the caller's word; aligned and not too long.
    Ok(unsafe { std::slice::from_raw_parts(items, count) })
}

/// Writes a result.
///
/// # Safety
///
/// `to` is null or can be written to.
pub unsafe fn give<T>(to: *mut T, value: T, what: &str) -> Result<(), Failure> {
    if to.is_null() {
        return Err(Failure::argument(format!("{what}: expected a place for the result, found null")));
    }
    // SAFETY: the caller's word.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes a result into a caller's struct, as much of it as the caller knows.
///
/// # Safety
///
/// `to` is null, or has as many bytes as its `struct_size` says.
pub unsafe fn write_struct<T: Extensible>(to: *mut T, value: T, what: &str) -> Result<(), Failure> {
    // SAFETY: the caller's word.
    unsafe { read_struct(to, what) }?;
    // SAFETY: checked above: the struct begins with its size.
    let struct_size = unsafe { to.cast::<usize>().read() };
    let known = struct_size.min(size_of::<T>());
    // SAFETY: the caller's word for `struct_size` bytes.
    unsafe {
        std::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), to.cast::<u8>(), known);
        to.cast::<usize>().write(struct_size);
    }
    Ok(())
}
