//! The structs that callers fill in.

use std::ffi::{c_char, c_void};

use super::read::{Extensible, write_defaults};
use super::status::{Status, guard};

/// What an engine is made of. Null pointers and zeros stand for the defaults: without checkpoints, the demo model that
/// is a part of the library.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct EngineOptions {
    /// The size of this struct in the caller's header.
    pub struct_size: usize,
    /// The transformer's checkpoint; null, and `vq_path` with it, for the demo model.
    pub gpt_path: *const c_char,
    /// The VQ model's checkpoint.
    pub vq_path: *const c_char,
    /// A text model's encoder: a Hugging Face T5 folder.
    pub t5_path: *const c_char,
    /// "auto" (also null), "cpu", "cuda" or "cuda:1".
    pub device: *const c_char,
    /// Where the text encoder runs; null for where all else does.
    pub text_device: *const c_char,
    /// What weights are held as: 0 for bf16, 1 for f32.
    pub f32: u32,
    /// CPU threads; 0 for one per core.
    pub threads: u32,
    /// Side of the pictures in pixels; 0 for what the checkpoint tells.
    pub image_size: u32,
    /// Attention heads, where the checkpoint does not tell; 0 for what it tells.
    pub n_head: u32,
    /// Pictures at once; 0 for as many as are of use.
    pub batch_size: u32,
    /// Requests that may wait; 0 for 64.
    pub queue: u32,
    /// Rows of a pass per picture while few are drawn; 0 to let the engine choose, 1 for a token after the other.
    /// Changes the time alone.
    pub lookahead: u32,
    /// Which half of the demo model: 0 for the one that takes prompts, else the one that takes classes.
    pub demo_classes: u32,
}

/// Called on the engine's thread whenever a picture has further rows, with its place in the request, its rows so far
/// and of how many. Must not take long, nor call the library but for smalti_request_cancel. Returning false cancels.
pub type Progress = Option<unsafe extern "C" fn(user_data: *mut c_void, image: u32, rows: u32, of: u32) -> bool>;

/// Where the caller's buffer lies.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Host = 0,
    /// The memory of a CUDA device: `output` is a CUdeviceptr, and is written in the order of `cuda_stream`.
    Cuda = 1,
}

/// What is asked for: pictures of prompts, or of classes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RequestOptions {
    /// The size of this struct in the caller's header.
    pub struct_size: usize,
    /// `subjects` prompts, for text models.
    pub prompts: *const *const c_char,
    /// `subjects` classes, for class models; smalti_engine_class finds them by name.
    pub classes: *const u32,
    pub subjects: usize,
    /// Pictures of each subject. By default 1.
    pub count: u32,
    /// Draw the likeliest codes always, unless 0.
    pub greedy: u32,
    /// Number of the first picture; number and seed decide a picture's noise.
    pub first_image: u64,
    pub seed: u64,
    /// Guidance; 1 or less switches it off. By default NaN, for the model's own.
    pub cfg_scale: f32,
    /// Guide only the first tokens, up to this one and the next. By default -1, for all.
    pub cfg_interval: i32,
    /// By default 1.
    pub temperature: f32,
    /// In (0, 1]. By default 1.
    pub top_p: f32,
    /// Draw among that many codes; 0 for all. By default -1, for the model's own.
    pub top_k: i64,
    /// Time from submission in which it must be done, in milliseconds; 0 for no limit.
    pub deadline_ms: u64,
    /// (pictures, height, width, 3) u8 out: written by the smalti_request_wait or smalti_request_poll that returns
    /// SMALTI_STATUS_OK, and by nothing else. May be null.
    pub output: *mut c_void,
    /// Room at `output` in bytes.
    pub output_bytes: usize,
    /// A `smalti_memory`: what `output` points into. By default the host's.
    pub output_memory: u32,
    /// For SMALTI_MEMORY_CUDA: the caller's CUstream or cudaStream_t, which captures no graph; null for the default stream.
    /// The engine's thread waits for its copies.
    pub cuda_stream: *mut c_void,
    /// May be null.
    pub progress: Progress,
    /// Handed to `progress`.
    pub user_data: *mut c_void,
}

/// What an engine draws, and how.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct EngineInfo {
    /// The size of this struct in the caller's header.
    pub struct_size: usize,
    /// Side of the pictures in pixels.
    pub image_size: u32,
    /// Codes per side of a picture.
    pub latent_size: u32,
    /// Classes of a class model; 0 for a text model.
    pub num_classes: u32,
    /// Pictures at once.
    pub batch_size: u32,
}

/// How far a request is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RequestProgress {
    /// The size of this struct in the caller's header.
    pub struct_size: usize,
    /// Pictures that it asks for.
    pub images: u32,
    /// Pictures that are done.
    pub images_done: u32,
    /// Rows of codes that are drawn, of all pictures.
    pub rows_done: u64,
    /// Rows of all pictures.
    pub rows: u64,
}

// SAFETY: repr(C) of numbers and pointers, the size first; any bits are a value.
unsafe impl Extensible for EngineOptions {
    fn with_defaults() -> Self {
        let none = std::ptr::null();
        Self {
            struct_size: size_of::<Self>(),
            gpt_path: none,
            vq_path: none,
            t5_path: none,
            device: none,
            text_device: none,
            f32: 0,
            threads: 0,
            image_size: 0,
            n_head: 0,
            batch_size: 0,
            queue: 0,
            demo_classes: 0,
            lookahead: 0,
        }
    }
}

// SAFETY: as above; of a function pointer, every bit pattern is one or null, and the caller says that it is right.
unsafe impl Extensible for RequestOptions {
    fn with_defaults() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            prompts: std::ptr::null(),
            classes: std::ptr::null(),
            subjects: 0,
            count: 1,
            greedy: 0,
            first_image: 0,
            seed: 0,
            cfg_scale: f32::NAN,
            cfg_interval: -1,
            temperature: 1.0,
            top_p: 1.0,
            top_k: -1,
            deadline_ms: 0,
            output: std::ptr::null_mut(),
            output_bytes: 0,
            output_memory: Memory::Host as u32,
            cuda_stream: std::ptr::null_mut(),
            progress: None,
            user_data: std::ptr::null_mut(),
        }
    }
}

// SAFETY: as above.
unsafe impl Extensible for EngineInfo {
    fn with_defaults() -> Self {
        Self { struct_size: size_of::<Self>(), image_size: 0, latent_size: 0, num_classes: 0, batch_size: 0 }
    }
}

// SAFETY: as above.
unsafe impl Extensible for RequestProgress {
    fn with_defaults() -> Self {
        Self { struct_size: size_of::<Self>(), images: 0, images_done: 0, rows_done: 0, rows: 0 }
    }
}

/// Fills in the defaults. `struct_size` is `sizeof *options`.
///
/// # Safety
///
/// `options` has `struct_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_engine_options_init(options: *mut EngineOptions, struct_size: usize) -> Status {
    // SAFETY: the caller's word.
    guard(|| unsafe { write_defaults(options, struct_size) }.map(|()| Status::Ok))
}

/// Fills in the defaults. `struct_size` is `sizeof *options`.
///
/// # Safety
///
/// `options` has `struct_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_request_options_init(options: *mut RequestOptions, struct_size: usize) -> Status {
    // SAFETY: the caller's word.
    guard(|| unsafe { write_defaults(options, struct_size) }.map(|()| Status::Ok))
}

/// Makes the struct ready for smalti_engine_get_info. `struct_size` is `sizeof *info`.
///
/// # Safety
///
/// `info` has `struct_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_engine_info_init(info: *mut EngineInfo, struct_size: usize) -> Status {
    // SAFETY: the caller's word.
    guard(|| unsafe { write_defaults(info, struct_size) }.map(|()| Status::Ok))
}

/// Makes the struct ready for smalti_request_get_progress. `struct_size` is `sizeof *progress`.
///
/// # Safety
///
/// `progress` has `struct_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_request_progress_init(progress: *mut RequestProgress, struct_size: usize) -> Status {
    // SAFETY: the caller's word.
    guard(|| unsafe { write_defaults(progress, struct_size) }.map(|()| Status::Ok))
}
