//! All cores on one list of ops: a team enters once per run, and work is dealt out phase by phase.
//!
//! The threads are rayon's; only the dealing is ours. Waking sleeping threads costs 5-20 µs, as long as a
//! small op takes, and a step has five ops per layer. A phase is over when its work is done, whoever did
//! it: a thread that the operating system took away holds the others up only while it holds a piece (of a
//! stream also the next one), and when it comes back it skips the phases that are over.

use std::cell::Cell;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A fixed number of threads that run one job together.
pub struct Team {
    pool: rayon::ThreadPool,
    /// Two jobs must not mix on one pool: each would wait for threads that the other has.
    busy: Mutex<()>,
    size: usize,
}

/// One thread's view of a running job.
pub struct Member<'a> {
    index: usize,
    size: usize,
    /// The phase that this thread is in, or was taken away from.
    phase: Cell<u32>,
    job: &'a Job,
}

/// What the members of a running job share.
#[derive(Default)]
struct Job {
    /// The phase in the upper half, how much of it is dealt out in the lower half.
    dealt: AtomicU64,
    /// How much of the phase is done.
    done: AtomicUsize,
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

    /// Runs rayon's parallel iterators on the team's threads.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool.install(work)
    }

    /// Runs `work` on every thread at once and waits for all.
    pub fn run(&self, work: impl Fn(&Member<'_>) + Sync) {
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let job = Job::default();
        self.pool.broadcast(|context| {
            let member = Member { index: context.index(), size: self.size, phase: Cell::new(0), job: &job };
            let mark = MarkPanic(&job);
            work(&member);
            std::mem::forget(mark);
        });
    }
}

/// Tells the others, who would wait for its piece for ever, that this thread unwound.
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

    /// A phase: deals `0..total` out to the team in runs of `chunk`, first come first served, and returns when
    /// all of it is done, by whomever; what it wrote, all see after.
    ///
    /// Every member calls it in the same order with the same numbers. Which thread does what changes from run
    /// to run; results must not depend on it. A thread may arrive when the team is phases ahead, so what ops
    /// write may be read inside `work` only.
    pub fn deal(&self, total: usize, chunk: usize, mut work: impl FnMut(Range<usize>)) {
        let phase = self.begin(total);
        while let Some(piece) = self.take(phase, total, total, &(chunk..=chunk)) {
            let count = piece.len();
            work(piece);
            self.finish(phase, total, count);
        }
        self.wait(phase);
    }

    /// As [`Member::deal`], for long streams of data: `work` is told where this member's next piece begins, or towards the
    /// end where it would if it came now, so that it can ask memory for it before the piece at hand ends.
    ///
    /// Lengths are multiples of the first of `chunks`, up to the last, and shrink towards the end, lest one member wait
    /// long for another's last piece; that one may be shorter still.
    pub fn deal_streams(&self, total: usize, chunks: RangeInclusive<usize>, mut work: impl FnMut(Range<usize>, usize)) {
        let phase = self.begin(total);
        // What is taken ahead leaves a piece for every other member.
        let ahead = total.saturating_sub(self.size * chunks.start());
        let mut next = None;
        while let Some(piece) = next.take().or_else(|| self.take(phase, total, total, &chunks)) {
            next = self.take(phase, ahead, total, &chunks);
            let count = piece.len();
            // Our piece is not done, so neither is the phase: this is its count.
            let dealt = || self.job.dealt.load(Ordering::Relaxed) as u32 as usize;
            let then = next.as_ref().map_or_else(dealt, |next| next.start);
            work(piece, then);
            self.finish(phase, total, count);
        }
        self.wait(phase);
    }

    /// The number of the phase that begins.
    fn begin(&self, total: usize) -> u32 {
        assert!(total < u32::MAX as usize, "{total} pieces are more than a phase counts");
        let phase = self.phase.get();
        self.phase.set(phase.wrapping_add(1));
        phase
    }

    /// Counts a piece of the phase as done; the last one ends it.
    fn finish(&self, phase: u32, total: usize, count: usize) {
        if self.job.done.fetch_add(count, Ordering::AcqRel) + count == total {
            self.advance(phase);
        }
    }

    /// The next piece of the phase, if it begins before `end`.
    fn take(&self, phase: u32, end: usize, total: usize, chunks: &RangeInclusive<usize>) -> Option<Range<usize>> {
        if total == 0 {
            // Nothing will ever be done: whoever comes first moves the team on.
            let (now, next) = (word(phase, 0), word(phase.wrapping_add(1), 0));
            let _ = self.job.dealt.compare_exchange(now, next, Ordering::AcqRel, Ordering::Acquire);
            return None;
        }
        let mut dealt = self.job.dealt.load(Ordering::Acquire);
        loop {
            let start = dealt as u32 as usize;
            if (dealt >> 32) as u32 != phase || start >= end {
                return None;
            }
            let (least, most) = (*chunks.start(), *chunks.end());
            // Half of what would be everybody's share of the rest.
            let share = (total - start) / (2 * self.size);
            let stop = (start + (share / least * least).clamp(least, most)).min(total);
            match self.job.dealt.compare_exchange_weak(dealt, word(phase, stop), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(start..stop),
                Err(now) => dealt = now,
            }
        }
    }

    /// Ends the phase; only the thread that did its last piece gets here.
    fn advance(&self, phase: u32) {
        self.job.done.store(0, Ordering::Relaxed);
        self.job.dealt.store(word(phase.wrapping_add(1), 0), Ordering::Release);
    }

    /// Waits until the phase is over.
    fn wait(&self, phase: u32) {
        let mut spins = 0u32;
        while (self.job.dealt.load(Ordering::Acquire) >> 32) as u32 == phase {
            assert!(!self.job.panicked.load(Ordering::Relaxed), "another thread of the team panicked");
            spins += 1;
            // Past some 20 µs somebody else probably has the core that we wait for.
            if spins < 5_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

fn word(phase: u32, dealt: usize) -> u64 {
    u64::from(phase) << 32 | dealt as u64
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
                    let deal = |range: Range<usize>| {
                        for i in range {
                            done[i].fetch_add(1, Ordering::Relaxed);
                        }
                    };
                    if round % 2 == 0 {
                        member.deal(done.len(), 7, deal);
                    } else {
                        member.deal_streams(done.len(), 8..=64, |range, _| deal(range));
                    }
                    assert!(done.iter().all(|count| count.load(Ordering::Relaxed) >= round), "passed early");
                    member.deal(0, 1, |_| unreachable!("nothing to deal"));
                }
            });
            assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 20));
        }
    }

    #[test]
    fn pieces_of_streams_grow_shorter_and_name_the_next() {
        let pieces = Mutex::new(Vec::new());
        Team::new(1).run(|member| {
            member.deal_streams(1000, 16..=128, |piece, next| pieces.lock().unwrap().push((piece, next)))
        });
        let pieces = pieces.into_inner().unwrap();
        assert_eq!(pieces[0].0, 0..128);
        for ((piece, next), (following, _)) in pieces.iter().zip(&pieces[1..]) {
            assert_eq!((*next, piece.end), (following.start, following.start));
            assert!(piece.len() % 16 == 0 && piece.len() >= following.len(), "{pieces:?}");
        }
        let (last, next) = pieces.last().unwrap();
        assert_eq!((last.end, *next), (1000, 1000));
    }

    #[test]
    fn a_panic_ends_the_job_and_not_the_team() {
        let team = Team::new(2);
        let job = std::panic::AssertUnwindSafe(|| {
            team.run(|member| {
                member.deal(2, 1, |range| assert!(range.start != 1, "piece 1 fails"));
            });
        });
        assert!(std::panic::catch_unwind(job).is_err());
        team.run(|member| member.deal(5, 1, |_| {}));
    }
}
