//! Where the benches run.

use smalti::backend::Executor;
use smalti::backend::cpu::CpuExecutor;
use smalti::backend::cuda::CudaExecutor;

/// The CPU with all cores, and the GPU where there is one that the kernels run on.
pub fn executors() -> Vec<(&'static str, Box<dyn Executor>)> {
    let mut all: Vec<(_, Box<dyn Executor>)> = vec![("cpu", Box::new(CpuExecutor::new(0)))];
    all.extend(CudaExecutor::open_any().ok().map(|gpu| ("cuda", Box::new(gpu) as Box<dyn Executor>)));
    all
}
