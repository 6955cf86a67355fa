//! Seeded mistakes: each is found by at least one build, and the check build names what and where.

mod common;

use common::{Buffer, bf16, builds, product, x};
use smalti_simt::{Build, Copies, Order, Simt};

/// What a run of a kernel with a mistake comes to.
#[derive(Debug, PartialEq)]
enum Found {
    /// An error that contains these words.
    Error(String),
    /// No error, and a wrong result.
    Wrong,
    Nothing,
}

fn outcome(launched: Result<(), String>, right: impl FnOnce() -> bool) -> Found {
    match launched {
        Err(error) => Found::Error(error),
        Ok(()) if right() => Found::Nothing,
        Ok(()) => Found::Wrong,
    }
}

/// `found` is an error with all of these words.
#[track_caller]
fn says(found: &Found, words: &[&str]) {
    let Found::Error(error) = found else { panic!("{found:?} instead of {words:?}") };
    assert!(words.iter().all(|word| error.contains(word)), "{error}\nlacks one of {words:?}");
}

/// out (64) from x (64) = 0, 1, 2, ... by one block of 64 threads with 256 bytes of shared memory.
fn one_block(simt: &Simt, kernel: &str, expected: impl Fn(usize) -> f32) -> Found {
    let input = Buffer::of(simt, &Vec::from_iter((0..64).map(|i| i as f32)));
    let out = Buffer::<f32>::new(simt, 64);
    let launched = launch!(simt, kernel, x(1), x(64), 256, false, out.ptr(), input.ptr());
    outcome(launched, || out.get() == Vec::from_iter((0..64).map(expected)))
}

fn product_of(simt: &Simt, kernel: &str) -> Found {
    const K: usize = 96;
    let a: Vec<u16> = (0..16 * K).map(|i| bf16((i * 7 % 15) as f32 - 7.0)).collect();
    let b: Vec<u16> = (0..8 * K).map(|i| bf16((i * 5 % 11) as f32 - 5.0)).collect();
    let out = Buffer::<f32>::new(simt, 16 * 8);
    let (a_buffer, b_buffer) = (Buffer::of(simt, &a), Buffer::of(simt, &b));
    let (a_ptr, b_ptr) = (a_buffer.ptr(), b_buffer.ptr());
    let launched = launch!(simt, kernel, x(1), x(64), 2 * 768, false, out.ptr(), a_ptr, b_ptr, K as i32);
    outcome(launched, || out.get() == product(&a, &b, K))
}

/// In the plain build, then in the check build.
fn both(run: impl Fn(&Simt) -> Found) -> Option<[Found; 2]> {
    let builds = builds();
    let found: Vec<Found> = builds.iter().map(|(_, simt)| run(simt)).collect();
    found.try_into().ok()
}

#[test]
fn a_missing_barrier() {
    let Some([plain, check]) = both(|simt| one_block(simt, "test_reversed_no_barrier", |i| 63.0 - i as f32)) else {
        return;
    };
    assert_eq!(plain, Found::Wrong);
    // Forward, the first warp reads what the second has not written yet.
    says(&check, &["block (0,0,0) thread (0,0,0)", "read of shared memory nobody wrote", "mistakes.cu:"]);
    let Some([_, check]) = both(|simt| {
        simt.configure(Order::Reverse, Copies::Lazy);
        one_block(simt, "test_reversed_no_barrier", |i| 63.0 - i as f32)
    }) else {
        return;
    };
    says(&check, &["read of shared memory nobody wrote"]);

    let Some([plain, check]) = both(|simt| product_of(simt, "test_product_no_barrier")) else { return };
    assert_eq!(plain, Found::Wrong);
    says(&check, &["race: read after write at shared", "no barrier between, at ldmatrix", "mistakes.cu:"]);
}

#[test]
fn a_missing_barrier_before_memory_is_written_again() {
    for copies in [Copies::Eager, Copies::Lazy] {
        let Some([_, check]) = both(|simt| {
            simt.configure(Order::Forward, copies);
            product_of(simt, "test_product_no_second_barrier")
        }) else {
            return;
        };
        says(&check, &["read of shared memory while an async copy", "in flight, at ldmatrix", "mistakes.cu:"]);
    }
}

#[test]
fn a_wait_for_too_few_copies() {
    for (copies, in_plain) in [(Copies::Lazy, Found::Wrong), (Copies::Eager, Found::Nothing)] {
        let Some([plain, check]) = both(|simt| {
            simt.configure(Order::Forward, copies);
            product_of(simt, "test_product_weak_wait")
        }) else {
            return;
        };
        assert_eq!(plain, in_plain, "an early copy hides it");
        says(&check, &["read of shared memory while an async copy", "in flight, at ldmatrix", "mistakes.cu:"]);
    }
}

#[test]
fn accesses_past_the_end() {
    let Some([plain, check]) = both(|simt| product_of(simt, "test_product_past_the_end")) else { return };
    says(&plain, &["invalid access", "bytes past the end of a buffer of 512"]);
    says(&check, &["write outside any buffer", "bytes past the end of a buffer of 512", "mistakes.cu:"]);

    let Some([plain, check]) = both(|simt| one_block(simt, "test_reversed_past_the_end", |i| 63.0 - i as f32)) else {
        return;
    };
    says(&plain, &["invalid access", "0 bytes past the end of 256 bytes of dynamic shared memory"]);
    says(&check, &["thread (63,0,0)", "write outside the 256 bytes of dynamic shared memory", "mistakes.cu:"]);

    let Some([plain, check]) = both(|simt| one_block(simt, "test_past_an_array", |i| i as f32)) else { return };
    says(&plain, &["write past the end of the shared array array (+0)"]);
    says(&check, &["write outside a shared array", "mistakes.cu:"]);
}

#[test]
fn reads_of_what_nobody_wrote() {
    let Some([plain, check]) = both(|simt| one_block(simt, "test_reversed_unwritten", |i| 63.0 - i as f32)) else {
        return;
    };
    assert_eq!(plain, Found::Wrong);
    says(&check, &["thread (58,0,0)", "read of shared memory nobody wrote (offset 38", "mistakes.cu:"]);

    let Some([plain, check]) = both(|simt| {
        let (out, input) = (Buffer::<f32>::new(simt, 64), Buffer::<f32>::new(simt, 64));
        let launched = launch!(simt, "test_reversed", x(1), x(64), 256, false, out.ptr(), input.ptr());
        outcome(launched, || out.get().iter().all(|value| !value.is_nan()))
    }) else {
        return;
    };
    assert_eq!(plain, Found::Wrong);
    says(&check, &["thread (0,0,0)", "read of global memory nobody wrote", "mistakes.cu:"]);
}

#[test]
fn memory_that_is_no_buffer() {
    for (build, simt) in builds() {
        let host = vec![1f32; 64];
        let out = Buffer::<f32>::new(&simt, 64);
        let launched = launch!(simt, "test_reversed", x(1), x(64), 256, false, out.ptr(), host.as_ptr().cast_mut());
        let freed = Buffer::of(&simt, &host).ptr();
        // Of the same size: were the freed one's memory handed out again, then to one of these.
        let _later: Vec<_> = (0..64).map(|_| Buffer::of(&simt, &host)).collect();
        let after = launch!(simt, "test_reversed", x(1), x(64), 256, false, out.ptr(), freed).unwrap_err();
        let null = std::ptr::null_mut::<f32>();
        let nothing = launch!(simt, "test_reversed", x(1), x(64), 256, false, out.ptr(), null).unwrap_err();
        match build {
            Build::Plain => {
                assert_eq!(launched, Ok(()), "the host's memory is readable");
                assert!(after.contains("invalid access") && after.contains("a buffer that was freed"), "{after}");
                assert!(nothing.contains("invalid access to (nil)"), "{nothing}");
            }
            Build::Check => {
                let error = launched.unwrap_err();
                assert!(error.contains("read of memory that is no buffer"), "{error}");
                assert!(after.contains("use of a buffer that was freed"), "{after}");
                assert!(nothing.contains("read of memory that is no buffer"), "{nothing}");
            }
        }
        assert!(nothing.contains("mistakes.cu:"), "{nothing}");
    }
}

#[test]
fn divergence_and_deadlock() {
    let run = |kernel: &'static str| both(move |simt| one_block(simt, kernel, |i| i as f32));
    for (kernel, words) in [
        ("test_reversed_divergent", &["divergent barrier: this thread is at", "others wait at", "mistakes.cu:"][..]),
        ("test_divergent_warp", &["divergent warp operation", "__ballot_sync", "__shfl_xor_sync", "mistakes.cu:"]),
        ("test_deadlock", &["deadlock", "warp 0 lanes 55555555 wait at __syncthreads", "aaaaaaaa wait at __syncwarp"]),
        ("test_absent_lane", &["shuffle: lane 0 reads lane 20, which does not take part"]),
        ("test_mask_without_caller", &["mask 0000ffff does not name the calling lane 16"]),
    ] {
        let Some([plain, check]) = run(kernel) else { return };
        says(&plain, words);
        says(&check, words);
    }
    for (_, simt) in builds() {
        let flag = Buffer::of(&simt, &[0u32]);
        let error = launch!(simt, "test_livelock", x(1), x(1), 0, false, flag.ptr()).unwrap_err();
        assert!(error.contains("livelock: only spinning threads are left"), "{error}");
        let error = launch!(simt, "test_grid_sync", x(1), x(1), 0, false, flag.ptr()).unwrap_err();
        assert!(error.contains("grid_sync") && error.contains("not cooperative"), "{error}");
    }
}

#[test]
fn misaligned_accesses() {
    let Some([plain, check]) = both(|simt| one_block(simt, "test_misaligned", |i| i as f32)) else { return };
    for found in [plain, check] {
        says(&found, &["is not a multiple of 16"]);
    }
    let Some([plain, check]) = both(|simt| one_block(simt, "test_misaligned_word", |_| 4.6e-41)) else { return };
    assert_ne!(plain, Found::Error(String::new()), "this processor reads it");
    says(&check, &["misaligned access of 4 bytes", "mistakes.cu:"]);
}

#[test]
fn races_between_blocks() {
    for (build, simt) in builds() {
        if build == Build::Plain {
            continue; // Any one result is a possible one.
        }
        let input = Buffer::of(&simt, &Vec::from_iter((0..1024).map(|i| i as f32)));
        let out = Buffer::<f32>::new(&simt, 1024);
        let error = launch!(simt, "test_same_element", x(2), x(1), 0, false, out.ptr(), input.ptr()).unwrap_err();
        assert!(error.contains("race between blocks: write after write"), "{error}");
        assert!(error.contains("mistakes.cu:"), "{error}");

        let ticket = Buffer::of(&simt, &[0u32]);
        let out = Buffer::<f32>::new(&simt, 64);
        let args = (out.ptr(), input.ptr(), ticket.ptr());
        let error = launch!(simt, "test_no_fence", x(2), x(32), 0, false, args.0, args.1, args.2).unwrap_err();
        assert!(error.contains("race between blocks: read after write"), "{error}");

        let sum = Buffer::of(&simt, &[0f32]);
        let args = (Buffer::<f32>::new(&simt, 1024), sum.ptr(), input.ptr());
        let kernel = "test_normalized_no_barrier";
        let error = launch!(simt, kernel, x(4), x(64), 0, true, args.0.ptr(), args.1, args.2).unwrap_err();
        assert!(error.contains("race: read after write at global"), "{error}");
    }
}

#[test]
fn reads_before_the_launch_that_is_waited_for() {
    for (build, simt) in builds() {
        let input = Buffer::of(&simt, &Vec::from_iter((0..64).map(|i| i as f32)));
        let weight = Buffer::of(&simt, &[2f32]);
        let (middle, out) = (Buffer::<f32>::new(&simt, 64), Buffer::<f32>::new(&simt, 64));
        let (first, second) = ("test_reversed", ["test_dependent", "test_dependent_too_early"]);
        launch!(simt, first, x(1), x(64), 256, false, middle.ptr(), input.ptr()).unwrap();
        let [right, early] =
            second.map(|kernel| launch!(simt, kernel, x(1), x(64), 0, false, out.ptr(), middle.ptr(), weight.ptr()));
        assert_eq!(right, Ok(()));
        match build {
            Build::Plain => assert_eq!(early, Ok(()), "launches follow one another here"),
            Build::Check => {
                let error = early.unwrap_err();
                assert!(error.contains("read of what an earlier launch wrote before grid_dependency_wait"), "{error}");
                assert!(error.contains("mistakes.cu:"), "{error}");
            }
        }
        // What the host has written since is there from the start, and so is what was written before the run.
        let kernel = "test_dependent_too_early";
        simt.host_wrote(middle.ptr().cast(), 64 * 4);
        launch!(simt, kernel, x(1), x(64), 0, false, out.ptr(), middle.ptr(), weight.ptr()).unwrap();
        launch!(simt, first, x(1), x(64), 256, false, middle.ptr(), input.ptr()).unwrap();
        simt.run_begins();
        launch!(simt, kernel, x(1), x(64), 0, false, out.ptr(), middle.ptr(), weight.ptr()).unwrap();
        launch!(simt, first, x(1), x(64), 256, false, middle.ptr(), input.ptr()).unwrap();
        let again = launch!(simt, kernel, x(1), x(64), 0, false, out.ptr(), middle.ptr(), weight.ptr());
        assert_eq!(again.is_err(), build == Build::Check);
    }
}

#[test]
fn random_orders_find_what_one_order_hides() {
    let Some((_, simt)) = builds().into_iter().find(|(build, _)| *build == Build::Plain) else { return };
    // Forward and lazy, the copies arrive too late to do harm.
    simt.configure(Order::Forward, Copies::Lazy);
    assert_eq!(product_of(&simt, "test_product_no_second_barrier"), Found::Nothing);
    let found = (0..20).filter(|&seed| {
        simt.configure(Order::Random(seed), Copies::Eager);
        product_of(&simt, "test_product_no_second_barrier") == Found::Wrong
    });
    assert!(found.count() >= 15);
}

#[test]
fn the_executor_works_on_after_an_error() {
    for (_, simt) in builds() {
        for _ in 0..20 {
            says(&one_block(&simt, "test_deadlock", |_| 0.0), &["deadlock"]);
            assert_eq!(one_block(&simt, "test_reversed", |i| 63.0 - i as f32), Found::Nothing);
        }
    }
}
