//! The most memory that a measurement took.

use crate::backend::Executor;
use crate::process;

/// Counts from its making on.
pub struct PeakMemory {
    /// Bytes that a device with memory of its own had free.
    free_before: Option<u64>,
}

impl PeakMemory {
    /// Begins to count: `own_memory` says whether the device has memory of its own, whose plans are all there is to
    /// count, or works in the host's.
    pub fn start(executor: &dyn Executor, own_memory: bool) -> Self {
        if own_memory {
            return Self { free_before: Some(executor.free_memory()) };
        }
        // Linux forgets the peak so far; elsewhere, or where that is not allowed, it counts from the program's start.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { free_before: None }
    }

    /// Bytes at the peak; `None` where the system does not tell.
    pub fn bytes(&self, executor: &dyn Executor) -> Option<u64> {
        match self.free_before {
            // A plan allocates all that it will need when it is laid out.
            Some(before) => Some(before.saturating_sub(executor.free_memory())),
            None => process::memory("VmHWM"),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::backend::cpu::CpuExecutor;

    #[test]
    fn a_large_array_is_seen() {
        let executor = CpuExecutor::new(1);
        let peak = PeakMemory::start(&executor, false);
        let array = vec![1u8; 300 << 20];
        assert!(std::hint::black_box(&array).iter().step_by(4096).all(|&x| x == 1));
        assert!(peak.bytes(&executor).expect("Linux tells") >= 300 << 20);
    }
}
