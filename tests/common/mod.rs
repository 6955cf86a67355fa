//! What several test programs share: reading expected tensors, comparing numbers, skipping by name.
#![allow(dead_code)] // each test program uses its part

pub mod card;
pub mod late;
mod resized;
pub mod simt;
pub mod small;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use smalti::backend::Executor;
use smalti::backend::cuda::CudaExecutor;
use smalti::backend::cuda::device::Device;
use smalti::backend::cuda::driver::CudaDevice;

use resized::Resized;

/// A tensor that a test expects.
pub struct Expected {
    pub shape: Vec<usize>,
    /// Values as f64, whatever the file's type.
    pub values: Vec<f64>,
}

/// Reads all tensors of a safetensors file with the reference reader, not with ours.
pub fn read_expected(path: &Path) -> BTreeMap<String, Expected> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file =
        safetensors::SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let data = view.data();
            let values = match view.dtype() {
                safetensors::Dtype::F32 => {
                    data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
                }
                safetensors::Dtype::I32 => {
                    data.chunks_exact(4).map(|b| f64::from(i32::from_le_bytes(b.try_into().unwrap()))).collect()
                }
                safetensors::Dtype::U8 => data.iter().map(|&b| f64::from(b)).collect(),
                other => panic!("{}: `{name}` has type {other:?}", path.display()),
            };
            (name, Expected { shape: view.shape().to_vec(), values })
        })
        .collect()
}

/// Compares element by element: |found - expected| ≤ allowed(i). Returns the largest share of the allowance used.
///
/// Panics with the first bad index, both values, and how many elements are beyond.
pub fn compare(
    what: &str,
    found: impl IntoIterator<Item = f64>,
    expected: &[f64],
    allowed: impl Fn(usize) -> f64,
) -> f64 {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len(), "{what}: number of elements");
    let share = |i: usize| {
        let difference = (found[i] - expected[i]).abs();
        // NaN on either side is a failure, not a pass.
        if difference.is_nan() { f64::INFINITY } else { difference / allowed(i) }
    };
    let shares: Vec<f64> = (0..found.len()).map(share).collect();
    if let Some(first) = shares.iter().position(|&share| share > 1.0) {
        let beyond = shares.iter().filter(|&&share| share > 1.0).count();
        let worst = shares.iter().copied().fold(0.0, f64::max);
        panic!(
            "{what}: element {first}: found {}, expected {}, allowed ±{:e}; {beyond} of {} beyond, worst {worst:.1}x",
            found[first],
            expected[first],
            allowed(first),
            found.len()
        );
    }
    shares.into_iter().fold(0.0, f64::max)
}

/// The golden rule for f32: 1e-4 of the tensor's largest magnitude. Returns the share used.
pub fn compare_to_largest(what: &str, found: impl IntoIterator<Item = f64>, expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    compare(what, found, expected, |_| 1e-4 * largest)
}

/// Says that a test was skipped and why; with `SMALTI_REQUIRE=all` that is a failure.
pub fn skip(what: &str, reason: &str) {
    assert!(std::env::var("SMALTI_REQUIRE").as_deref() != Ok("all"), "{what} may not be skipped: {reason}");
    report(&format!("skipped: {what}: {reason}"));
}

/// A line that is seen even when the test passes, which captures what `println!` says.
pub fn report(line: &str) {
    use std::io::Write;
    writeln!(std::io::stderr(), "{line}").expect("standard error is open");
}

/// Executors for the CUDA kernels: the SIMT executor, and a GPU where there is one. A line says what is missing.
pub fn cuda_executors(what: &str) -> Vec<(String, Box<dyn Executor>)> {
    let mut all: Vec<(String, Box<dyn Executor>)> = Vec::new();
    match simt::executor(simt::WAYS[0]) {
        Ok(executor) => all.push(("simt".into(), Box::new(executor))),
        Err(reason) => skip(&format!("{what} on the SIMT executor"), &reason),
    }
    all.extend(gpu().map(|executor| ("gpu".to_string(), Box::new(executor) as Box<dyn Executor>)));
    all
}

/// This machine's GPU, where it has one that the kernels run on; with `SMALTI_REQUIRE_GPU=1` there must be one.
pub fn gpu() -> Option<CudaExecutor> {
    Some(CudaExecutor::new(gpu_device()?))
}

/// The same as a card of so many multiprocessors, which decides how work is cut.
pub fn gpu_of(multiprocessors: usize) -> Option<CudaExecutor> {
    Some(CudaExecutor::new(Arc::new(Resized { device: gpu_device()?, multiprocessors })))
}

fn gpu_device() -> Option<Arc<dyn Device>> {
    match CudaDevice::open_any() {
        Ok(device) => Some(Arc::new(device)),
        Err(error) => {
            assert!(std::env::var("SMALTI_REQUIRE_GPU").as_deref() != Ok("1"), "a GPU is required: {error}");
            None
        }
    }
}
