//! Kernels as the driver has them: modules loaded when first used, functions by name.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys;

use super::context::Context;
use crate::Result;
use crate::backend::cuda::device::{Capacity, Kernel, Launch, VQ_SHARED_KB};
use crate::backend::cuda::kernels;

/// The functions of one context; they end with it.
pub(super) struct Functions {
    loaded: Mutex<Loaded>,
    /// Percent of the shared memory that a multiprocessor can have, the rest being cache, whatever the kernel.
    carveout: Option<i32>,
    capacity: Capacity,
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
    pub fn new(carveout: Option<i32>, capacity: Capacity) -> Self {
        Self { loaded: Mutex::default(), carveout, capacity }
    }

    /// The launch's function, allowed the shared memory that the launch wants. In the context.
    pub fn get(&self, context: &Context, launch: &Launch) -> Result<sys::CUfunction> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let name = launch.kernel.name;
        let mut function = match loaded.functions.get(name) {
            Some(function) => *function,
            None => {
                let raw = loaded.find(context, launch.kernel)?;
                let percent = self.carveout.unwrap_or_else(|| carveout_of(launch.kernel, self.capacity));
                let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
                // SAFETY: the function is of this context.
                let set = unsafe { sys::cuFuncSetAttribute(raw, attribute, percent) };
                context.check(set, || format!("setting the carveout of {name}"))?;
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

/// Kernels of the VQ models.
const OF_VQ: [&str; 6] =
    ["codebook_lookup", "conv2d", "group_norm_stats", "nearest_code", "pixels_to_input", "spatial_attention"];

/// The percentage that a kernel asks for. Launches that follow each other ask for the same: a multiprocessor may have to be
/// idle to change its share, and then nothing overlaps.
fn carveout_of(kernel: Kernel, capacity: Capacity) -> i32 {
    match OF_VQ.contains(&kernel.module) {
        true => (100 * VQ_SHARED_KB / capacity.multiprocessor_kb()).min(100) as i32,
        false => 100,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vq_models_leave_a_cache_where_there_is_enough() {
        let percent = |module, opt_in_kb: usize| {
            let capacity = Capacity { multiprocessors: 132, shared_bytes: opt_in_kb << 10 };
            carveout_of(Kernel { name: "", module }, capacity)
        };
        // Of 228, 164 and 100 KB.
        assert_eq!([227, 163, 99].map(|kb| percent("conv2d", kb)), [57, 80, 100]);
        assert_eq!(percent("attention", 227), 100);
        let modules: Vec<&str> = kernels::MODULES.iter().map(|(module, _)| *module).collect();
        assert!(modules.is_empty() || OF_VQ.iter().all(|module| modules.contains(module)), "{modules:?}");
    }
}
