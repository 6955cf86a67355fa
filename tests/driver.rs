//! What stands between plans and NVIDIA's driver (`src/backend/cuda/driver/`), by a driver of the tests' own whose card
//! is the SIMT executor: it refuses what NVIDIA's refuses, and counts what it should not have been asked for.

mod common;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::card;
use common::simt::{WAYS, executor as simt};
use smalti::backend::Executor;
use smalti::backend::cuda::CudaExecutor;
use smalti::backend::cuda::driver::copy_to_device;
use smalti::checkpoint::{Checkpoint, WeightsChoice};
use smalti::config::{GenerationOptions, GptConfig};
use smalti::generate::{Conditioning, Request, Session, generate};
use smalti::graph::Elem;
use smalti::models::GptShape;
use smalti::{Error, Result};
use smalti_simt::Driver;

/// The card, and everyone's word that nobody else uses the driver meanwhile.
struct Card {
    _turn: MutexGuard<'static, ()>,
    driver: &'static Driver,
    /// Before.
    misuses: usize,
}

impl Card {
    /// `None` where there is none, which is told.
    fn take(what: &str) -> Option<(Self, CudaExecutor)> {
        static TURN: Mutex<()> = Mutex::new(());
        card::available(what)?;
        for name in ["SIMT_CARD", "SMALTI_CUDA_EAGER", "SMALTI_CUDA_OVERLAP", "SMALTI_CUDA_CARVEOUT"] {
            assert!(std::env::var_os(name).is_none(), "{name} is set: nothing is to change what is tested");
        }
        let driver = Driver::load(&format!("{} cards=2", card::properties())).expect("it was there");
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let card = Self { _turn: turn, driver, misuses: driver.misuses() };
        Some((card, CudaExecutor::open(0).expect("a card")))
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.driver.fault(0);
        if !std::thread::panicking() {
            assert_eq!(self.driver.misuses(), self.misuses, "standard error says which");
            assert_eq!(self.driver.entered(), 0, "contexts were entered and not left");
        }
    }
}

/// Places for two pictures of 16 codes.
fn session(executor: &dyn Executor) -> Result<Session> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/c2i/gpt.pt");
    let checkpoint = Checkpoint::open(&file, WeightsChoice::Model).expect("it opens");
    let (config, _) = GptConfig::detect(&checkpoint, Some(2)).expect("a transformer");
    let activations = executor.activations();
    let shape = GptShape { latent_size: 4, slots: 4, rows: 4, pictures: 2, precision: Elem::Bf16, activations };
    Session::new(executor, &checkpoint, &config, &shape)
}

/// Three pictures: the last one alone.
fn codes(executor: &dyn Executor) -> Result<Vec<Vec<u32>>> {
    let options = GenerationOptions { cfg_interval: 6, top_k: Some(50), seed: 9, ..Default::default() };
    let sampling = options.validate(256).expect("valid options");
    let requests: Vec<Request> =
        (0..3).map(|image| Request { condition: Conditioning::Class(5), image, sampling }).collect();
    generate(&mut session(executor)?, &requests, |_| true)
}

#[test]
fn recorded_steps_draw_what_single_launches_draw() {
    let Some((_card, executor)) = Card::take("recorded steps") else { return };
    let direct = simt(WAYS[0]).expect("the driver has it too");
    assert_eq!(codes(&executor).expect("codes"), codes(&direct).expect("codes"));
}

#[test]
fn sessions_of_two_threads_record_and_draw_beside_each_other() {
    let Some((_card, executor)) = Card::take("sessions of two threads") else { return };
    let alone = codes(&executor).expect("codes");
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| codes(&executor).expect("codes")));
        for thread in threads {
            assert_eq!(thread.join().expect("it drew"), alone);
        }
    });
}

#[test]
fn after_a_fault_a_new_session_has_a_context_of_its_own() {
    let Some((card, executor)) = Card::take("a fault") else { return };
    let before = card.driver.launches();
    let expected = codes(&executor).expect("codes");
    let launches = card.driver.launches() - before;
    // In the first step, somewhere within, and in the last one.
    for number in [1, launches / 2, launches] {
        card.driver.fault(number);
        let error = codes(&executor).expect_err("a fault");
        let Error::Device { problem, hint, .. } = &error else { panic!("{error}") };
        assert!(problem.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{problem}");
        assert!(hint.contains("start a new session") && hint.contains("SMALTI_CUDA_EAGER=1"), "{hint}");
        card.driver.fault(0);
        assert_eq!(codes(&executor).expect("codes"), expected, "after launch {number}");
    }
}

#[test]
fn other_programs_captures_do_not_forbid_what_a_session_does() {
    let Some((card, executor)) = Card::take("captures of other programs") else { return };
    let expected = codes(&executor).expect("codes");
    assert_eq!(card.driver.captured_by_another(|| codes(&executor)).expect("codes"), expected);
    let memory = card.driver.foreign(4, false);
    // SAFETY: the memory is that long, and the stream one of its context; so below.
    let copied =
        card.driver.captured_by_another(|| unsafe { copy_to_device(&[7; 4], memory.address(), memory.stream()) });
    copied.expect("copied");
    assert_eq!(memory.read(), [7; 4]);
    // What a capture would note down is not there any more when its graph is launched.
    let refused = memory.capturing(|| unsafe { copy_to_device(&[8; 4], memory.address(), memory.stream()) });
    let error = refused.expect_err("a capture").to_string();
    assert!(error.contains("the stream is capturing a graph"), "{error}");
    assert_eq!(memory.read(), [7; 4]);
}

#[test]
fn a_session_gives_back_what_it_took() {
    let Some((_card, executor)) = Card::take("memory") else { return };
    let memory = || (executor.used_memory().expect("memory of its own"), executor.free_memory());
    let before = memory();
    let session = session(&executor).expect("a session");
    let (used, free) = memory();
    assert!(used > before.0 + (1 << 20) && free < before.1, "a session of some megabytes: {before:?}, {used} {free}");
    drop(session);
    assert_eq!(memory(), before);
}

#[test]
fn each_card_has_contexts_of_its_own() {
    let Some((card, first)) = Card::take("a second card") else { return };
    let contexts = || [0, 1].map(|number| card.driver.contexts(number));
    assert_eq!(contexts(), [1, 0]);
    let second = CudaExecutor::open(1).expect("a card");
    assert_eq!(contexts(), [1, 1]);
    assert!(second.describe().starts_with("cuda:1 (SIMT executor 1, "), "{}", second.describe());
    assert_eq!(codes(&second).expect("codes"), codes(&first).expect("codes"));
    drop(second);
    assert_eq!(contexts(), [1, 0]);
}

#[test]
fn pictures_are_copied_into_memory_of_other_contexts() {
    let Some((card, _executor)) = Card::take("memory of other contexts") else { return };
    let expected: Vec<u8> = (0..=255).collect();
    for of_the_pool in [false, true] {
        let memory = card.driver.foreign(512, of_the_pool);
        // Behind the program's own stream, or behind the default one.
        for (at, stream) in [(0, memory.stream()), (256, std::ptr::null_mut())] {
            // SAFETY: 256 bytes from there on are the memory's, and the stream is one of its context.
            unsafe { copy_to_device(&expected, memory.address() + at, stream) }.expect("copied");
        }
        assert_eq!(memory.read(), [expected.clone(), expected.clone()].concat(), "of the pool: {of_the_pool}");
    }
    let host = [0u8; 4];
    // SAFETY: an address that no card has is an error.
    let error = unsafe { copy_to_device(&host, host.as_ptr().addr() as u64, std::ptr::null_mut()) }.unwrap_err();
    assert!(error.to_string().contains("looking up the address: CUDA_ERROR_INVALID_VALUE"), "{error}");
}
