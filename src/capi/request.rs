//! Requests: submitted, waited for or looked at now and then, cancelled, closed.

use std::ffi::{c_char, c_void};
use std::slice;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::engine::{Engine, session};
use super::handles::Handles;
use super::options::{Memory, Progress, RequestOptions, RequestProgress};
use super::read::{give, list, optional_text, read_struct, write_struct};
use super::status::{Failure, Status, guard};
use crate::backend::cuda::driver::copy_to_device;
use crate::config::GenerationOptions;
use crate::{Canceller, Event, Image, Session, Subject};

/// Pictures that were asked for.
pub struct Request {
    _opaque: [u8; 0],
}

static REQUESTS: Handles<Job> = Handles::new("request");

/// A request and what has come of it.
struct Job {
    canceller: Canceller,
    outcome: Arc<Outcome>,
    output: Output,
    /// Rows of a picture.
    latent_size: usize,
}

struct Outcome {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Rows of each picture.
    rows: Vec<u32>,
    images: Vec<Option<Image>>,
    end: Option<Result<(), (Status, String)>>,
    /// The caller's buffer has the pictures.
    delivered: bool,
}

impl Outcome {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The caller's buffer.
#[derive(Clone, Copy)]
struct Output {
    address: *mut c_void,
    memory: Memory,
    stream: *mut c_void,
}

// SAFETY: the caller says that the buffer can be written to from the thread that waits; it is written under a lock.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// The caller's function and what it is handed.
#[derive(Clone, Copy)]
struct Callback(Progress, *mut c_void);

// SAFETY: the header says on which thread it is called, and the caller agrees by setting it.
unsafe impl Send for Callback {}

impl Callback {
    /// Whether to go on.
    fn call(self, image: usize, rows: usize, of: usize) -> bool {
        let Self(Some(function), user_data) = self else { return true };
        // SAFETY: the caller's function with the caller's pointer.
        unsafe { function(user_data, image as u32, rows as u32, of as u32) }
    }
}

/// Submits a request; `*request` is closed with smalti_request_close, which also cancels it.
///
/// # Safety
///
/// `options` was initialised and its lists are as long as it says; `request` can be written to. `output` stays good
/// until the request was waited for or closed, `user_data` until then or until the engine is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_submit(
    engine: *const Engine,
    options: *const RequestOptions,
    request: *mut *mut Request,
) -> Status {
    guard(|| {
        // SAFETY: the caller's word.
        let options = unsafe { read_struct(options, "options") }?;
        // SAFETY: the caller's word.
        unsafe { give(request, std::ptr::null_mut(), "request") }?;
        // SAFETY: the caller's word.
        let job = unsafe { submit(&*session(engine)?, &options) }?;
        // SAFETY: the caller's word.
        unsafe { give(request, REQUESTS.insert(job), "request") }?;
        Ok(Status::Ok)
    })
}

/// # Safety
///
/// The lists are as long as the options say, and strings end with a zero.
unsafe fn submit(session: &Session, options: &RequestOptions) -> Result<Job, Failure> {
    // SAFETY: the caller's word.
    let mut asked = crate::Request::new(unsafe { subjects(options) }?);
    asked.count = options.count as usize;
    asked.first_image = options.first_image;
    asked.deadline = (options.deadline_ms > 0).then(|| Duration::from_millis(options.deadline_ms));
    asked.options = GenerationOptions {
        cfg_scale: Some(options.cfg_scale).filter(|scale| !scale.is_nan()),
        cfg_interval: options.cfg_interval,
        temperature: options.temperature,
        top_k: Some(options.top_k).filter(|&k| k != -1),
        top_p: options.top_p,
        greedy: options.greedy != 0,
        seed: options.seed,
    };
    // Before anything is made for each picture.
    asked.check()?;
    let images = asked.images();
    let output = output(options, images, session.model().image_size())?;
    let of = session.model().latent_size();
    let callback = Callback(options.progress, options.user_data);
    let state =
        State { rows: vec![0; images], images: (0..images).map(|_| None).collect(), end: None, delivered: false };
    let outcome = Arc::new(Outcome { state: Mutex::new(state), changed: Condvar::new() });
    let told = outcome.clone();
    // Known when the request was submitted; a refusal before that ends it at the next event.
    let canceller = Arc::new(OnceLock::<Canceller>::new());
    let own = canceller.clone();
    let mut refused = false;
    let receive = move |event| {
        let callback = callback;
        match event {
            Event::Rows { index, rows } => {
                told.lock().rows[index] = rows as u32;
                refused |= !callback.call(index, rows, of);
                if let Some(canceller) = own.get().filter(|_| refused) {
                    canceller.cancel();
                }
            }
            Event::Image(image) => {
                let mut state = told.lock();
                state.rows[image.index] = of as u32;
                let index = image.index;
                state.images[index] = Some(image);
            }
            Event::Done(result) => {
                told.lock().end = Some(result.map(drop).map_err(|error| {
                    let Failure { status, text } = Failure::from(error);
                    (status, text)
                }));
                told.changed.notify_all();
            }
            _ => {}
        }
    };
    let submitted = session.submit_to(asked, receive)?;
    let canceller = canceller.get_or_init(|| submitted).clone();
    Ok(Job { canceller, outcome, output, latent_size: of })
}

/// # Safety
///
/// As for [`submit`].
unsafe fn subjects(options: &RequestOptions) -> Result<Vec<Subject>, Failure> {
    // SAFETY: the caller's word, for both.
    let prompts = unsafe { list(options.prompts, options.subjects, "prompts") }?;
    let classes = unsafe { list(options.classes, options.subjects, "classes") }?;
    if options.subjects == 0 || prompts.is_empty() == classes.is_empty() {
        return Err(Failure::argument("subjects: expected one or more, all in `prompts` or all in `classes`"));
    }
    let prompt = |&text: &*const c_char| {
        // SAFETY: the caller's word.
        let text = unsafe { optional_text(text, "prompts") }?;
        text.map(Subject::Prompt).ok_or_else(|| Failure::argument("prompts: expected strings, found null"))
    };
    let prompts = prompts.iter().map(prompt).collect::<Result<Vec<_>, _>>()?;
    Ok(prompts.into_iter().chain(classes.iter().copied().map(Subject::Class)).collect())
}

fn output(options: &RequestOptions, images: usize, side: usize) -> Result<Output, Failure> {
    let memory = match options.output_memory {
        0 => Memory::Host,
        1 => Memory::Cuda,
        other => return Err(Failure::argument(format!("output_memory: expected 0 or 1, found {other}"))),
    };
    let needed = images.saturating_mul(side * side * 3);
    if !options.output.is_null() && options.output_bytes < needed {
        let problem = format!("output_bytes: expected {needed} or more, found {}", options.output_bytes);
        return Err(Failure::new(Status::BufferTooSmall, problem));
    }
    Ok(Output { address: options.output, memory, stream: options.cuda_stream })
}

/// Waits until a request is done, for at most `timeout_ms` milliseconds; for ever when that is negative.
///
/// SMALTI_STATUS_OK: all pictures are done and lie in `output`. SMALTI_STATUS_PENDING: not yet. Else why there are
/// none. May be called again, and by several threads.
///
/// # Safety
///
/// The request's `output` is still good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_request_wait(request: *const Request, timeout_ms: i64) -> Status {
    guard(|| {
        let job = REQUESTS.get(request)?;
        let until = u64::try_from(timeout_ms).ok().and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        let mut state = job.outcome.lock();
        while state.end.is_none() {
            let changed = &job.outcome.changed;
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Ok(Status::Pending),
                Some(left) => changed.wait_timeout(state, left).map_or_else(|e| e.into_inner().0, |(state, _)| state),
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        if let Some(Err((status, text))) = &state.end {
            return Err(Failure::new(*status, text.clone()));
        }
        if !state.delivered {
            // SAFETY: the caller's word.
            unsafe { job.output.fill(&state.images) }?;
            state.delivered = true;
        }
        Ok(Status::Ok)
    })
}

/// As smalti_request_wait with a timeout of 0.
///
/// # Safety
///
/// The request's `output` is still good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_request_poll(request: *const Request) -> Status {
    // SAFETY: the caller's word.
    unsafe { smalti_request_wait(request, 0) }
}

impl Output {
    /// Writes all pictures, one behind the other.
    ///
    /// # Safety
    ///
    /// The buffer is still good.
    unsafe fn fill(self, images: &[Option<Image>]) -> Result<(), Failure> {
        if self.address.is_null() {
            return Ok(());
        }
        let mut at = 0;
        for image in images {
            let image = image.as_ref().ok_or_else(|| Failure::new(Status::Internal, "a picture is missing"))?;
            let pixels = image.picture.pixels();
            match self.memory {
                // SAFETY: `output` was found long enough for all pictures of this size.
                Memory::Host => unsafe {
                    slice::from_raw_parts_mut(self.address.cast::<u8>().add(at), pixels.len()).copy_from_slice(pixels);
                },
                // SAFETY: as above; address and stream are the caller's.
                Memory::Cuda => unsafe {
                    copy_to_device(pixels, self.address.addr() as u64 + at as u64, self.stream)?;
                },
            }
            at += pixels.len();
        }
        Ok(())
    }
}

/// Tells how far a request is. `progress` was initialised.
///
/// # Safety
///
/// `progress` has the bytes that its `struct_size` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_request_get_progress(
    request: *const Request,
    progress: *mut RequestProgress,
) -> Status {
    guard(|| {
        let job = REQUESTS.get(request)?;
        let state = job.outcome.lock();
        let told = RequestProgress {
            struct_size: size_of::<RequestProgress>(),
            images: state.images.len() as u32,
            images_done: state.images.iter().flatten().count() as u32,
            rows_done: state.rows.iter().map(|&rows| u64::from(rows)).sum(),
            rows: state.rows.len() as u64 * job.latent_size as u64,
        };
        // SAFETY: the caller's word.
        unsafe { write_struct(progress, told, "progress") }?;
        Ok(Status::Ok)
    })
}

/// Copies the codes of a picture that is done, in raster order; `*needed` (may be null) is how many there are. With
/// too little room nothing is copied: SMALTI_STATUS_BUFFER_TOO_SMALL.
///
/// # Safety
///
/// `codes` has room for `capacity` codes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_request_codes(
    request: *const Request,
    image: u32,
    codes: *mut u32,
    capacity: usize,
    needed: *mut usize,
) -> Status {
    // SAFETY: the caller's word.
    guard(|| with_image(request, image, |image| unsafe { copy_out(&image.codes, codes, capacity, needed) }))
}

/// Copies a picture that is done as a PNG file; else as smalti_request_codes.
///
/// # Safety
///
/// `png` has room for `capacity` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_request_png(
    request: *const Request,
    image: u32,
    png: *mut u8,
    capacity: usize,
    needed: *mut usize,
) -> Status {
    // SAFETY: the caller's word.
    guard(|| with_image(request, image, |image| unsafe { copy_out(&image.png(&[])?, png, capacity, needed) }))
}

/// Copies the part of a picture's prompt that was too much for the text encoder, as UTF-8 with a zero behind it: the
/// zero alone where nothing was cut; else as smalti_request_codes.
///
/// # Safety
///
/// `text` has room for `capacity` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_request_prompt_cut(
    request: *const Request,
    image: u32,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> Status {
    guard(|| {
        with_image(request, image, |image| {
            let cut = image.prompt_cut.as_deref().unwrap_or_default();
            // Cleaned text has no zeros of its own.
            let bytes: Vec<u8> = cut.bytes().chain([0]).collect();
            // SAFETY: the caller's word.
            unsafe { copy_out(&bytes, text.cast(), capacity, needed) }
        })
    })
}

fn with_image(
    request: *const Request,
    number: u32,
    copy: impl FnOnce(&Image) -> Result<(), Failure>,
) -> Result<Status, Failure> {
    let job = REQUESTS.get(request)?;
    let state = job.outcome.lock();
    let image = state.images.get(number as usize).ok_or_else(|| {
        Failure::argument(format!("image: expected one of {} from 0 on, found {number}", state.images.len()))
    })?;
    match image {
        Some(image) => copy(image).map(|()| Status::Ok),
        None => Ok(Status::Pending),
    }
}

/// # Safety
///
/// `to` has room for `capacity` items; `needed` is null or can be written to.
unsafe fn copy_out<T: Copy>(items: &[T], to: *mut T, capacity: usize, needed: *mut usize) -> Result<(), Failure> {
    if !needed.is_null() {
        // SAFETY: the caller's word.
        unsafe { needed.write(items.len()) };
    }
    if to.is_null() || capacity < items.len() {
        let found = if to.is_null() { 0 } else { capacity };
        let problem = format!("capacity: expected {} or more, found {found}", items.len());
        return Err(Failure::new(Status::BufferTooSmall, problem));
    }
    // SAFETY: the caller's word for `capacity` items, which are as many at least.
    unsafe { std::ptr::copy_nonoverlapping(items.as_ptr(), to, items.len()) };
    Ok(())
}

/// Asks a request to end, from any thread; it ends at the next step, with SMALTI_STATUS_CANCELLED.
#[unsafe(no_mangle)]
pub extern "C" fn smalti_request_cancel(request: *const Request) -> Status {
    guard(|| {
        REQUESTS.get(request)?.canceller.cancel();
        Ok(Status::Ok)
    })
}

/// Cancels what is not done and closes the handle.
#[unsafe(no_mangle)]
pub extern "C" fn smalti_request_close(request: *mut Request) -> Status {
    guard(|| {
        REQUESTS.remove(request)?.canceller.cancel();
        Ok(Status::Ok)
    })
}
