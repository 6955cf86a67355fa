//! All cores on one list of ops: a team enters once per run, and work is dealt out phase by phase.
//!
//! The threads are rayon's; only the dealing is ours. Waking sleeping threads costs 5-20 µs, as long as a
//! small op takes, and a step has five ops per layer. Every member has a share of a phase, the same stretch in every
//! step: so a core finds what its cache has kept of it, and memory sees one long stream from each. Who is done with
//! their own takes of the others'. A phase is over when its work is done, whoever did it: a thread that the operating
//! system took away holds the others up only while it holds a piece, and when it comes back it skips the phases that
//! are over.

use std::cell::Cell;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A fixed number of threads that run one job together.
pub struct Team {
    pool: rayon::ThreadPool,
    /// Two jobs must not mix on one pool: each would wait for threads that the other has.
    busy: Mutex<()>,
    /// The one that runs, or ran last.
    job: Job,
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
struct Job {
    /// The units of every member's share that are not dealt out, in one word with the number of the last phase in which
    /// some were: that, the first unit, the end.
    shares: Vec<Alone<AtomicU64>>,
    /// The phase that is under way; the first one is 1.
    phase: AtomicU32,
    /// How much of the phase is done, in units.
    done: Alone<AtomicUsize>,
    panicked: AtomicBool,
}

/// Alone on the cache lines that a core fetches together: what one member writes often, others need not wait for.
#[repr(align(128))]
#[derive(Default)]
struct Alone<T>(T);

/// Bits of a unit in the word of a share, and what these and those of a phase hold.
const UNIT_BITS: u32 = 22;
const MOST_UNITS: usize = (1 << UNIT_BITS) - 1;
const MOST_PHASES: u32 = (1 << (u64::BITS - 2 * UNIT_BITS)) - 1;

fn word(phase: u32, left: &Range<usize>) -> u64 {
    (u64::from(phase) << UNIT_BITS | left.start as u64) << UNIT_BITS | left.end as u64
}

/// The same, taken apart.
fn phase_and_left(word: u64) -> (u32, Range<usize>) {
    let unit = |word: u64| word as usize & MOST_UNITS;
    ((word >> (2 * UNIT_BITS)) as u32, unit(word >> UNIT_BITS)..unit(word))
}

impl Job {
    fn new(size: usize) -> Self {
        let shares = (0..size).map(|_| Alone::default()).collect();
        Self { shares, phase: AtomicU32::new(1), done: Alone::default(), panicked: AtomicBool::new(false) }
    }

    /// Begins anew; no member is there.
    fn reset(&self) {
        self.shares.iter().for_each(|share| share.0.store(0, Ordering::Relaxed));
        self.phase.store(1, Ordering::Relaxed);
        self.done.0.store(0, Ordering::Relaxed);
        self.panicked.store(false, Ordering::Relaxed);
    }
}

/// A phase as all of its members see it: `total` things in units of so many, the last one maybe less.
#[derive(Clone, Copy)]
struct Phase {
    number: u32,
    total: usize,
    unit: usize,
    /// Units that a piece may have.
    most: usize,
}

impl Phase {
    fn units(&self) -> usize {
        self.total.div_ceil(self.unit)
    }

    /// The units of a member's share.
    fn share(&self, index: usize, size: usize) -> Range<usize> {
        let [start, end] = [index, index + 1].map(|index| (self.units() * index).div_ceil(size));
        start..end
    }

    fn things(&self, units: &Range<usize>) -> Range<usize> {
        units.start * self.unit..(units.end * self.unit).min(self.total)
    }
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
        Self { pool, busy: Mutex::new(()), job: Job::new(size), size }
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
        let job = &self.job;
        job.reset();
        self.pool.broadcast(|context| {
            let member = Member { index: context.index(), size: self.size, phase: Cell::new(1), job };
            let mark = MarkPanic(job);
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

    /// A phase: deals `0..total` out to the team in runs of `chunk`, and returns when all of it is done, by whomever;
    /// what it wrote, all see after.
    ///
    /// Every member calls it in the same order with the same numbers. A member begins with its own share, the same
    /// whenever the numbers are; who does the rest changes from run to run, and results must not depend on it. A thread
    /// may arrive when the team is phases ahead, so what ops write may be read inside `work` only.
    pub fn deal(&self, total: usize, chunk: usize, mut work: impl FnMut(Range<usize>)) {
        self.go_through(total, chunk..=chunk, |phase, units| work(phase.things(&units)));
    }

    /// As [`Member::deal`], for long streams of data: `work` is told where this member's next piece begins if nothing
    /// changes, so that it can ask memory for it before the piece at hand ends; `total` where none is left.
    ///
    /// Lengths are multiples of the first of `chunks`, up to the last, and shrink towards a share's end, lest one
    /// member wait long for another's last piece; that one may be shorter still.
    pub fn deal_streams(&self, total: usize, chunks: RangeInclusive<usize>, mut work: impl FnMut(Range<usize>, usize)) {
        self.go_through(total, chunks, |phase, units| {
            let next = self.next(phase).map_or(total, |next| phase.things(&next).start);
            work(phase.things(&units), next);
        });
    }

    fn go_through(&self, total: usize, chunks: RangeInclusive<usize>, mut work: impl FnMut(Phase, Range<usize>)) {
        let (unit, most) = (*chunks.start(), *chunks.end() / *chunks.start());
        let phase = Phase { number: self.phase.get(), total, unit, most };
        assert!(phase.units() <= MOST_UNITS, "{} pieces are more than a phase counts", phase.units());
        assert!(phase.number < MOST_PHASES, "more phases than a job counts");
        self.phase.set(phase.number + 1);
        if total == 0 {
            // Nothing will ever be done: whoever comes first moves the team on.
            let (now, next) = (phase.number, phase.number + 1);
            let _ = self.job.phase.compare_exchange(now, next, Ordering::AcqRel, Ordering::Acquire);
        }
        while let Some(units) = self.take(phase) {
            let count = units.len();
            work(phase, units);
            if self.job.done.0.fetch_add(count, Ordering::AcqRel) + count == phase.units() {
                self.job.done.0.store(0, Ordering::Relaxed);
                self.job.phase.store(phase.number + 1, Ordering::Release);
            }
        }
        self.wait(phase.number);
    }

    /// Takes this member's next piece, its own or another's.
    fn take(&self, phase: Phase) -> Option<Range<usize>> {
        loop {
            if self.job.phase.load(Ordering::Acquire) != phase.number {
                return None;
            }
            let (owner, now, left) = self.richest(phase)?;
            let (piece, left) = cut(phase, owner == self.index, left);
            let next = word(phase.number, &left);
            let share = &self.job.shares[owner].0;
            if share.compare_exchange(now, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(piece);
            }
        }
    }

    /// What this member would take now.
    fn next(&self, phase: Phase) -> Option<Range<usize>> {
        let (owner, _, left) = self.richest(phase)?;
        Some(cut(phase, owner == self.index, left).0)
    }

    /// Whose share this member takes from, the word that stands there, and what is left: from its own as long as
    /// there is something, then from the one of which most is left.
    fn richest(&self, phase: Phase) -> Option<(usize, u64, Range<usize>)> {
        let left = |owner: usize| {
            let now = self.job.shares[owner].0.load(Ordering::Acquire);
            let (last, left) = phase_and_left(now);
            let left = match last.cmp(&phase.number) {
                // Nobody has taken of it in this phase.
                std::cmp::Ordering::Less => phase.share(owner, self.size),
                std::cmp::Ordering::Equal => left,
                // This phase is over.
                std::cmp::Ordering::Greater => 0..0,
            };
            (owner, now, left)
        };
        let rich = |(_, _, left): &(usize, u64, Range<usize>)| !left.is_empty();
        let others = || (1..self.size).map(|i| left((self.index + i) % self.size)).filter(rich);
        Some(left(self.index)).filter(rich).or_else(|| others().max_by_key(|(_, _, left)| left.len()))
    }

    /// Waits until the phase is over.
    fn wait(&self, phase: u32) {
        let mut spins = 0u32;
        while self.job.phase.load(Ordering::Acquire) == phase {
            assert!(!self.job.panicked.load(Ordering::Relaxed), "another thread of the team panicked");
            spins += 1;
            // Past some 20 µs somebody else probably has the core that we wait for.
            if spins < 5_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

/// A piece of what is left of a share, and what is left then. Its owner takes from the front, others from the back: the
/// owner's stream goes on.
fn cut(phase: Phase, own: bool, left: Range<usize>) -> (Range<usize>, Range<usize>) {
    let len = (left.len() / 2).clamp(1, phase.most);
    match own {
        true => (left.start..left.start + len, left.start + len..left.end),
        false => (left.end - len..left.end, left.start..left.end - len),
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
    fn shares_are_all_there_is() {
        for (size, total, unit) in [(1, 10, 3), (2, 1, 1), (3, 2, 1), (4, 1000, 32), (64, 768, 32), (7, 0, 1)] {
            let phase = Phase { number: 1, total, unit, most: 1 };
            let shares: Vec<usize> = (0..size).flat_map(|index| phase.things(&phase.share(index, size))).collect();
            assert_eq!(shares, (0..total).collect::<Vec<_>>(), "{size} of {total}");
        }
    }

    #[test]
    fn words_hold_what_a_share_may_have() {
        for (phase, left) in [(0, 0..0), (1, 3..17), (MOST_PHASES, MOST_UNITS - 1..MOST_UNITS)] {
            assert_eq!(phase_and_left(word(phase, &left)), (phase, left));
        }
    }

    #[test]
    fn others_take_what_a_member_does_not_come_to() {
        let done = AtomicUsize::new(0);
        let pieces = Mutex::new(Vec::new());
        Team::new(3).run(|member| {
            for _ in 0..50 {
                member.deal(1, 1, |_| {
                    done.store(0, Ordering::Relaxed);
                    pieces.lock().unwrap().clear();
                });
                member.deal_streams(300, 2..=20, |piece, _| {
                    // Whoever has the first piece keeps it until all else is done.
                    while piece.start == 0 && done.load(Ordering::Relaxed) + piece.len() < 300 {
                        std::thread::yield_now();
                    }
                    pieces.lock().unwrap().push((piece.clone(), member.index()));
                    done.fetch_add(piece.len(), Ordering::Relaxed);
                });
            }
        });
        let mut pieces = pieces.into_inner().unwrap();
        assert_eq!(pieces.last().unwrap().0.start, 0, "{pieces:?}");
        assert!(pieces.iter().any(|(_, index)| *index != pieces[pieces.len() - 1].1), "{pieces:?}");
        pieces.sort_by_key(|(piece, _)| piece.start);
        assert!(pieces.iter().flat_map(|(piece, _)| piece.clone()).eq(0..300), "{pieces:?}");
    }

    #[test]
    fn who_comes_phases_late_finds_them_over() {
        let team = Team::new(2);
        let done = AtomicUsize::new(0);
        for _ in 0..20 {
            done.store(0, Ordering::Relaxed);
            team.run(|member| {
                for _ in 0..10 {
                    if member.index() == 1 && done.load(Ordering::Relaxed) < 80 {
                        std::thread::sleep(std::time::Duration::from_micros(300));
                    }
                    member.deal(10, 1, |piece| {
                        done.fetch_add(piece.len(), Ordering::Relaxed);
                    });
                }
            });
            assert_eq!(done.load(Ordering::Relaxed), 100);
        }
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
        let done = AtomicUsize::new(0);
        team.run(|member| {
            member.deal(5, 1, |piece| {
                done.fetch_add(piece.len(), Ordering::Relaxed);
            })
        });
        assert_eq!(done.load(Ordering::Relaxed), 5);
    }
}
