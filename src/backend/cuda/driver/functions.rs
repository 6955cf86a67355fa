//! Kernels as the driver has them: modules loaded when first used, functions by name.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys;

use super::context::Context;
use crate::Result;
use crate::backend::cuda::device::{Kernel, Launch};
use crate::backend::cuda::kernels;

/// The functions of one context; they end with it.
pub(super) struct Functions {
    loaded: Mutex<Loaded>,
    /// Percent of a multiprocessor's on-chip memory that is to be shared memory, whatever the kernel.
    carveout: Option<i32>,
}

#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, sys::CUmodule>,
    functions: HashMap<&'static str, Function>,
}

// SAFETY: modules and functions are handles; the driver takes them from any thread.
unsafe impl Send for Loaded {}

#[derive(Clone, Copy)]
struct Function {
    raw: sys::CUfunction,
    /// Dynamic shared memory that was asked for. (Without asking there are 48 KB less what static arrays take.)
    shared_bytes: u32,
}

impl Functions {
    pub fn new(carveout: Option<i32>) -> Self {
        Self { loaded: Mutex::default(), carveout }
    }

    /// The launch's function, allowed the shared memory that the launch wants. In the context.
    pub fn get(&self, context: &Context, launch: &Launch) -> Result<sys::CUfunction> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let name = launch.kernel.name;
        let mut function = match loaded.functions.get(name) {
            Some(function) => *function,
            None => {
                let raw = loaded.find(context, launch.kernel)?;
                if let Some(percent) = self.carveout.or_else(|| carveout_of(launch.kernel)) {
                    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
                    // SAFETY: the function is of this context.
                    let set = unsafe { sys::cuFuncSetAttribute(raw, attribute, percent) };
                    context.check(set, || format!("setting the carveout of {name}"))?;
                }
                Function { raw, shared_bytes: 0 }
            }
        };
        if launch.shared_bytes > function.shared_bytes {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is of this context.
            let set = unsafe { sys::cuFuncSetAttribute(function.raw, attribute, launch.shared_bytes as i32) };
            context.check(set, || format!("asking for shared memory for {}", launch.describe()))?;
            function.shared_bytes = launch.shared_bytes;
        }
        loaded.functions.insert(name, function);
        Ok(function.raw)
    }
}

/// All of it, so that launches that follow each other want the same: a multiprocessor may have to be idle to change its
/// share, and then nothing overlaps. Convolutions, which want the rest as a cache for weights, are left to the driver.
fn carveout_of(kernel: Kernel) -> Option<i32> {
    (kernel.module != "conv2d").then_some(100)
}

impl Loaded {
    fn find(&mut self, context: &Context, kernel: Kernel) -> Result<sys::CUfunction> {
        let module = match self.modules.get(kernel.module) {
            Some(module) => *module,
            None => load(context, kernel.module)?,
        };
        self.modules.insert(kernel.module, module);
        let name = CString::new(kernel.name).expect("a kernel's name has no zero in it");
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is of this context, the name ends with a zero.
        let found = unsafe { sys::cuModuleGetFunction(&mut function, module, name.as_ptr()) };
        context.check(found, || format!("looking for the kernel {} in {}.cu", kernel.name, kernel.module))?;
        Ok(function)
    }
}

fn load(context: &Context, name: &str) -> Result<sys::CUmodule> {
    let (_, image) = kernels::MODULES.iter().find(|(module, _)| *module == name).expect("the program has kernels");
    let mut module = std::ptr::null_mut();
    // SAFETY: the image is a whole fatbin, as nvcc wrote it.
    let loaded = unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) };
    context.check(loaded, || format!("loading the kernels of {name}.cu"))?;
    Ok(module)
}
