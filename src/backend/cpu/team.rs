//! All cores on one list of ops: a team enters once per run and meets at a barrier after each op.
//!
//! The threads are rayon's; only the barrier is ours. Waking sleeping threads costs 5-20 µs, as long as a
//! small op takes, and a step has five ops per layer; spinning between them costs well below one.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A fixed number of threads that run one job together.
pub struct Team {
    pool: rayon::ThreadPool,
    /// Two jobs must not mix at the barrier.
    busy: Mutex<()>,
    size: usize,
}

/// One thread's view of a running job.
pub struct Member<'a> {
    index: usize,
    size: usize,
    job: &'a Job,
}

/// What the members of a running job share.
#[derive(Default)]
struct Job {
    arrived: AtomicUsize,
    generation: AtomicUsize,
    claimed: AtomicUsize,
    panicked: AtomicBool,
}

impl Team {
    /// A team of `size` threads; 0 means one per core.
    pub fn new(size: usize) -> Self {
        let size = if size == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { size };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(size)
            .thread_name(|index| format!("smalti-cpu-{index}"))
            .build()
            .expect("the operating system starts threads");
        Self { pool, busy: Mutex::new(()), size }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// Runs `work` on every thread at once and waits for all.
    pub fn run(&self, work: impl Fn(&Member<'_>) + Sync) {
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let job = Job::default();
        self.pool.broadcast(|context| {
            let member = Member { index: context.index(), size: self.size, job: &job };
            let mark = MarkPanic(&job);
            work(&member);
            std::mem::forget(mark);
        });
    }
}

/// Tells the others, who would wait at the barrier for ever, that this thread unwound.
struct MarkPanic<'a>(&'a Job);

impl Drop for MarkPanic<'_> {
    fn drop(&mut self) {
        self.0.panicked.store(true, Ordering::Release);
    }
}

impl Member<'_> {
    /// 0..team size.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Members of the team.
    pub fn team_size(&self) -> usize {
        self.size
    }

    /// Waits until all members are here; what any wrote before, all see after.
    pub fn barrier(&self) {
        let generation = self.job.generation.load(Ordering::Relaxed);
        if self.job.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.size {
            self.job.arrived.store(0, Ordering::Relaxed);
            self.job.claimed.store(0, Ordering::Relaxed);
            self.job.generation.store(generation.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0u32;
        while self.job.generation.load(Ordering::Acquire) == generation {
            assert!(!self.job.panicked.load(Ordering::Relaxed), "another thread of the team panicked");
            spins += 1;
            // Past ~50 µs somebody else probably has the core that we wait for.
            if spins < 20_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }

    /// Deals `0..total` out to the team in runs of `chunk`, first come first served, then meets at the barrier.
    ///
    /// Which thread does what changes from run to run; results must not depend on it.
    pub fn deal(&self, total: usize, chunk: usize, mut work: impl FnMut(Range<usize>)) {
        loop {
            let start = self.job.claimed.fetch_add(chunk, Ordering::Relaxed);
            if start >= total {
                break;
            }
            work(start..(start + chunk).min(total));
        }
        self.barrier();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deals_everything_once() {
        for size in [1, 2, 5] {
            let team = Team::new(size);
            let done: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            team.run(|member| {
                for round in 1..=20 {
                    member.deal(done.len(), 7, |range| {
                        for i in range {
                            done[i].fetch_add(1, Ordering::Relaxed);
                        }
                    });
                    assert!(done.iter().all(|count| count.load(Ordering::Relaxed) >= round), "barrier passed early");
                }
            });
            assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 20));
        }
    }

    #[test]
    fn a_panic_ends_the_job_and_not_the_team() {
        let team = Team::new(2);
        let job = std::panic::AssertUnwindSafe(|| {
            team.run(|member| {
                assert!(member.index() != 1, "thread 1 fails");
                member.barrier();
            });
        });
        assert!(std::panic::catch_unwind(job).is_err());
        team.run(|member| member.barrier());
    }
}
