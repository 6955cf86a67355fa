//! Engines: a model at work on a device.

use std::ffi::c_char;
use std::sync::Arc;

use super::handles::Handles;
use super::options::{EngineInfo, EngineOptions};
use super::read::{give, optional_text, read_struct, write_struct};
use super::status::{Failure, Status, guard};
use crate::backend::Device;
use crate::generate::Lookahead;
use crate::graph::Elem;
use crate::{Model, ModelFiles, Session, SessionOptions};

/// A model at work on a device.
pub struct Engine {
    _opaque: [u8; 0],
}

static ENGINES: Handles<Session> = Handles::new("engine");

/// The session behind a handle.
pub(super) fn session(engine: *const Engine) -> Result<Arc<Session>, Failure> {
    ENGINES.get(engine)
}

/// Opens a model and lays it out on a device. `*engine` is closed with smalti_engine_close.
///
/// # Safety
///
/// `options` was initialised and its strings end with a zero; `engine` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_engine_create(options: *const EngineOptions, engine: *mut *mut Engine) -> Status {
    guard(|| {
        // SAFETY: the caller's word.
        let options = unsafe { read_struct(options, "options") }?;
        // So that whoever does not look at the status has no wild handle.
        // SAFETY: the caller's word.
        unsafe { give(engine, std::ptr::null_mut(), "engine") }?;
        // SAFETY: the caller's word.
        let session = unsafe { open(&options) }?;
        // SAFETY: the caller's word.
        unsafe { give(engine, ENGINES.insert(session), "engine") }?;
        Ok(Status::Ok)
    })
}

/// # Safety
///
/// The strings end with a zero.
unsafe fn open(options: &EngineOptions) -> Result<Session, Failure> {
    // SAFETY: the caller's word.
    let text = |text, what| unsafe { optional_text(text, what) };
    let given = |number: u32| (number > 0).then_some(number as usize);
    let device = |name: Option<String>, what: &str| match name {
        None => Ok(None),
        Some(name) => name.parse::<Device>().map(Some).map_err(|error| Failure::argument(format!("{what}: {error}"))),
    };
    if options.demo_classes != 0 && !(options.gpt_path.is_null() && options.vq_path.is_null()) {
        return Err(Failure::argument("demo_classes: expected 0 beside gpt_path and vq_path"));
    }
    let model = match (text(options.gpt_path, "gpt_path")?, text(options.vq_path, "vq_path")?) {
        (Some(gpt), Some(vq)) => Model::open(&ModelFiles {
            t5: text(options.t5_path, "t5_path")?.map(Into::into),
            n_head: given(options.n_head),
            image_size: given(options.image_size),
            ..ModelFiles::new(gpt, vq)
        })?,
        (None, None) => {
            if !options.t5_path.is_null() || options.n_head > 0 || options.image_size > 0 {
                let what = "t5_path, n_head and image_size: expected none without gpt_path: the demo model has its own";
                return Err(Failure::argument(what));
            }
            if options.demo_classes == 0 { Model::demo()? } else { Model::demo_classes()? }
        }
        (Some(_), None) => return Err(Failure::argument("vq_path: expected a checkpoint beside gpt_path, found null")),
        (None, Some(_)) => return Err(Failure::argument("gpt_path: expected a checkpoint beside vq_path, found null")),
    };
    let defaults = SessionOptions::default();
    let session = SessionOptions {
        device: device(text(options.device, "device")?, "device")?.unwrap_or_default(),
        text_device: device(text(options.text_device, "text_device")?, "text_device")?,
        threads: options.threads as usize,
        precision: if options.f32 == 0 { Elem::Bf16 } else { Elem::F32 },
        batch_size: given(options.batch_size),
        queue: given(options.queue).unwrap_or(defaults.queue),
        lookahead: given(options.lookahead).map_or(Lookahead::Auto, Lookahead::Window),
        ..defaults
    };
    Ok(Session::start(&model, &session)?)
}

/// Tells what an engine draws. `info` was initialised.
///
/// # Safety
///
/// `info` has the bytes that its `struct_size` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_engine_get_info(engine: *const Engine, info: *mut EngineInfo) -> Status {
    guard(|| {
        let session = session(engine)?;
        let model = session.model();
        let told = EngineInfo {
            struct_size: size_of::<EngineInfo>(),
            image_size: model.image_size() as u32,
            latent_size: model.latent_size() as u32,
            num_classes: model.num_classes().unwrap_or(0) as u32,
            batch_size: session.batch_size() as u32,
        };
        // SAFETY: the caller's word.
        unsafe { write_struct(info, told, "info") }?;
        Ok(Status::Ok)
    })
}

/// Finds a class by its name or number.
///
/// # Safety
///
/// `name` ends with a zero; `class_number` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_engine_class(
    engine: *const Engine,
    name: *const c_char,
    class_number: *mut u32,
) -> Status {
    guard(|| {
        let session = session(engine)?;
        // SAFETY: the caller's word.
        let name = unsafe { optional_text(name, "name") }?;
        let name = name.ok_or_else(|| Failure::argument("name: expected a class, found null"))?;
        // SAFETY: the caller's word.
        unsafe { give(class_number, session.model().class(&name)?, "class_number") }?;
        Ok(Status::Ok)
    })
}

/// Takes no more requests and waits until those are done that were taken. The handle stays open.
#[unsafe(no_mangle)]
pub extern "C" fn smalti_engine_drain(engine: *const Engine) -> Status {
    guard(|| {
        session(engine)?.drain();
        Ok(Status::Ok)
    })
}

/// Ends all requests, with SMALTI_STATUS_ENDED, and frees the device. Their handles are closed on their own.
#[unsafe(no_mangle)]
pub extern "C" fn smalti_engine_close(engine: *mut Engine) -> Status {
    guard(|| {
        ENGINES.remove(engine)?.close();
        Ok(Status::Ok)
    })
}
