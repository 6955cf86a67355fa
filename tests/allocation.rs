//! Nothing in the token loop allocates: entering the team costs a few blocks, a token costs none.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use smalti::backend::cpu::CpuExecutor;
use smalti::checkpoint::{Checkpoint, WeightsChoice};
use smalti::config::{GenerationOptions, GptConfig};
use smalti::generate::{Conditioning, Request, Session};
use smalti::graph::Elem;
use smalti::models::GptShape;

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_token_allocates_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/c2i-head100-bf16");
    let checkpoint = Checkpoint::open(&folder.join("gpt.pt"), WeightsChoice::Model).unwrap();
    let (config, _) = GptConfig::detect(&checkpoint, Some(2)).unwrap();
    let shape =
        GptShape { latent_size: 6, slots: 6, rows: 6, pictures: 3, precision: Elem::Bf16, activations: Elem::F32 };
    let mut session = Session::new(&CpuExecutor::new(2), &checkpoint, &config, &shape).unwrap();
    // Filters that sort, so that their scratch is counted too.
    let options = GenerationOptions { top_k: Some(100), top_p: 0.9, ..Default::default() };
    let sampling = options.validate(config.vocab_size).unwrap();
    for image in 0..3 {
        assert!(session.start(image, &Request { condition: Conditioning::Class(1), image, sampling }).unwrap());
    }
    session.advance(1).unwrap(); // writes the tables
    let mut count = |tokens: usize| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        assert_eq!(session.advance(tokens).unwrap(), 3 * tokens);
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    let entering = (0..3).map(|_| count(1)).max().unwrap();
    assert!(count(30) <= entering, "30 tokens allocate more than entering the team does ({entering})");
}
