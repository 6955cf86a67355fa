//! Whole plans on the CUDA executor, by the SIMT executor and on a GPU where there is one: steps that do not
//! depend on their company, sessions that repeat themselves, and what becomes of a plan whose device failed.

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};

use common::simt::{WAYS, device, executor};
use common::{cuda_executors, gpu, skip};
use smalti::backend::cuda::device::{Capacity, Device, Mapped, Memory, Ptr, Stream};
use smalti::backend::cuda::driver::CudaDevice;
use smalti::backend::cuda::{CudaExecutor, arithmetic_rate};
use smalti::backend::{Executor, Plan};
use smalti::checkpoint::{Checkpoint, WeightsChoice};
use smalti::config::{GenerationOptions, GptConfig};
use smalti::generate::{Conditioning, Request, Session, generate};
use smalti::graph::{Elem, Extent, Row};
use smalti::models::{GptGraph, GptShape};
use smalti::{Error, Result};

fn open() -> (Checkpoint, GptConfig) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/c2i/gpt.pt");
    let checkpoint = Checkpoint::open(&file, WeightsChoice::Model).expect("it opens");
    let (config, _) = GptConfig::detect(&checkpoint, Some(2)).expect("a transformer");
    (checkpoint, config)
}

/// A plan for `rows` sequences of 16 tokens, one row each.
fn plan(executor: &dyn Executor, rows: usize) -> (GptGraph, Box<dyn Plan>) {
    let (checkpoint, config) = open();
    let activations = executor.activations();
    let shape = GptShape { latent_size: 4, slots: rows, rows, pictures: rows, precision: Elem::Bf16, activations };
    let gpt = GptGraph::new(&config, &shape);
    let plan = executor.plan(Arc::new(gpt.graph.clone()), &checkpoint).expect("a plan");
    (gpt, plan)
}

/// The logits that `rows` leave, one vocabulary each.
fn logits(gpt: &GptGraph, plan: &mut dyn Plan, rows: &[Row]) -> Vec<f32> {
    let extent = Extent { rows: rows.len(), draws: 0 };
    plan.write(gpt.rows, 0, rows).expect("written");
    plan.run_nodes(gpt.step, 0..gpt.sampling(), extent).expect("it runs");
    let mut logits = vec![0f32; rows.len() * 256];
    plan.read(gpt.logits, 0, &mut logits).expect("read");
    logits
}

/// Two positions of one sequence per slot: the condition, then a code that depends on the slot.
fn rows_at(position: u32, slots: impl Iterator<Item = u32>) -> Vec<Row> {
    let token = |slot| if position == 0 { slot % 10 } else { slot * 37 % 256 };
    slots.map(|slot| Row { slot, position, token: token(slot), settled: 0 }).collect()
}

#[test]
fn a_row_does_not_depend_on_its_company() {
    for (device, executor) in cuda_executors("rows among others") {
        let mut alone: Option<Vec<f32>> = None;
        for others in [0, 1, 7, 15, 16, 31, 63, 255] {
            // The row that is watched stands in the middle of the others.
            let (gpt, mut plan) = plan(executor.as_ref(), others + 1);
            let (slots, watched) = (others as u32 + 1, others / 2);
            let mut found = Vec::new();
            for position in [0, 1] {
                let mut rows = rows_at(position, 0..slots);
                rows[watched].token = 3 + position;
                let all = logits(&gpt, plan.as_mut(), &rows);
                found.extend_from_slice(&all[watched * 256..][..256]);
            }
            match &alone {
                None => alone = Some(found),
                Some(alone) => assert!(found == *alone, "{device}: among {others} others a row has other bits"),
            }
        }
    }
}

fn session(executor: &dyn Executor, places: usize) -> Result<Session> {
    let (checkpoint, config) = open();
    let rows = 2 * places;
    let activations = executor.activations();
    let shape = GptShape { latent_size: 4, slots: rows, rows, pictures: places, precision: Elem::Bf16, activations };
    Session::new(executor, &checkpoint, &config, &shape)
}

fn codes(session: &mut Session, options: &GenerationOptions) -> Result<Vec<Vec<u32>>> {
    let sampling = options.validate(256).expect("valid options");
    let requests: Vec<Request> =
        (0..3).map(|image| Request { condition: Conditioning::Class(5), image, sampling }).collect();
    generate(session, &requests, |_| true)
}

#[test]
fn a_seed_gives_its_pictures_again_in_any_batch() {
    for (device, executor) in cuda_executors("sessions") {
        // Guidance that ends halfway: fewer rows from there on, another recording.
        for cfg_interval in [-1, 6] {
            let options = GenerationOptions { cfg_interval, top_k: Some(50), seed: 9, ..Default::default() };
            let run = |places| codes(&mut session(executor.as_ref(), places).expect("a session"), &options);
            let first = run(3).expect("codes");
            assert_eq!(first, run(3).expect("codes"), "{device}: the second run differs");
            // Three pictures in two places: the third enters alone, in a bucket with padding.
            assert_eq!(first, run(2).expect("codes"), "{device}: the batch shows");
            assert_ne!(first[0], first[1], "two pictures of one class have noise of their own");
        }
    }
}

#[test]
fn a_failed_device_ends_its_session_and_no_other() {
    let executor = match executor(WAYS[0]) {
        Ok(executor) => executor,
        Err(reason) => return skip("a kernel that fails", &reason),
    };
    let (gpt, mut broken) = plan(&executor, 2);
    // A slot that the cache does not have, far beyond its end.
    let row = Row { slot: 1 << 20, position: 1, token: 0, settled: 0 };
    broken.write(gpt.rows, 0, &[row]).expect("written");
    let error = broken.run_nodes(gpt.step, 0..gpt.sampling(), Extent { rows: 1, draws: 0 }).expect_err("a fault");
    let text = error.to_string();
    for part in ["layers.0.attention.wqkv", "norm_qkv_rope", "grid ", "block "] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    let again = broken.replay(gpt.step, Extent { rows: 1, draws: 0 }, 1).expect_err("it is of no use any more");
    assert!(matches!(&again, Error::Device { .. }) && again.hint() == Some("start a new session"), "{again}");

    let (gpt, mut fresh) = plan(&executor, 2);
    let found = logits(&gpt, fresh.as_mut(), &rows_at(0, 0..2));
    assert!(found.iter().all(|x| x.is_finite()), "a new session works");
}

/// A device that has failed and hands over to another one; it must be left alone.
struct Failed(Mutex<Option<Arc<dyn Device>>>);

impl Device for Failed {
    fn describe(&self) -> String {
        "failed".into()
    }

    fn capacity(&self) -> Capacity {
        unreachable!()
    }

    fn memory(&self) -> Result<Memory> {
        unreachable!()
    }

    fn alloc(&self, _: usize) -> Result<Ptr> {
        unreachable!()
    }

    fn alloc_mapped(&self, _: usize) -> Result<Mapped> {
        unreachable!()
    }

    unsafe fn free(&self, _: Ptr) {
        unreachable!()
    }

    unsafe fn free_mapped(&self, _: Mapped) {
        unreachable!()
    }

    fn stream(&self) -> Result<Box<dyn Stream>> {
        unreachable!()
    }

    fn renewed(&self) -> Result<Option<Arc<dyn Device>>> {
        let next = self.0.lock().unwrap().take();
        Ok(Some(next.expect("it is asked once")))
    }
}

#[test]
fn a_new_session_is_on_the_device_that_stands_in_for_a_failed_one() {
    let next = match device(WAYS[0], 4) {
        Ok(device) => device,
        Err(reason) => return skip("a device in place of another", &reason),
    };
    let executor = CudaExecutor::new(Arc::new(Failed(Mutex::new(Some(next)))));
    assert_eq!(executor.describe(), "failed");
    assert!(executor.free_memory() > 0);
    assert!(executor.describe().starts_with("simt"), "{}", executor.describe());
    let (gpt, mut plan) = plan(&executor, 2);
    let found = logits(&gpt, plan.as_mut(), &rows_at(0, 0..2));
    assert!(found.iter().all(|x| x.is_finite()));
}

/// The kernel that measures arithmetic does the products that it is counted for.
#[test]
fn what_the_arithmetic_rate_counts_is_computed() {
    const TIMES: usize = 5;
    // As the kernel makes them: two numbers in each register of a lane.
    let factors = |lane: usize, which: usize| {
        [(lane * 7 + which * 5) % 16, (lane * 3 + which * 11 + 1) % 16].map(|x| (x as f64 - 8.0) / 8.0)
    };
    let (mut a, mut b) = ([[0f64; 16]; 16], [[0f64; 8]; 16]);
    for lane in 0..32 {
        let (g, t) = (lane / 4, 2 * (lane % 4));
        for (which, (row, column)) in [(g, t), (g + 8, t), (g, t + 8), (g + 8, t + 8)].into_iter().enumerate() {
            [a[row][column], a[row][column + 1]] = factors(lane, which);
        }
        for (which, row) in [t, t + 8].into_iter().enumerate() {
            [b[row][g], b[row + 1][g]] = factors(lane, 4 + which);
        }
    }
    let product = |row: usize, column: usize| (0..16).map(|k| a[row][k] * b[k][column]).sum::<f64>();
    let check = |device: &Arc<dyn Device>| {
        let sums = arithmetic_rate::sums(device, TIMES).expect("it runs");
        assert_eq!(sums.len(), 2 * device.capacity().multiprocessors * 256);
        for (thread, &sum) in sums.iter().enumerate() {
            let (g, t) = (thread % 32 / 4, 2 * (thread % 4));
            let lane = [(g, t), (g, t + 1), (g + 8, t), (g + 8, t + 1)].map(|(row, column)| product(row, column));
            let expected = 28.0 + 8.0 * TIMES as f64 * lane.iter().sum::<f64>();
            assert_eq!(f64::from(sum), expected, "thread {thread}, {}", device.describe());
        }
    };
    if let Some(executor) = gpu() {
        check(&(Arc::new(CudaDevice::open_any().expect("the same card")) as Arc<dyn Device>));
        let rate = executor.arithmetic_rate(Elem::Bf16).expect("it runs").expect("a card keeps time");
        assert!((1e12..1e16).contains(&rate), "{rate} FLOP/s");
    }
    for way in WAYS {
        match device(way, 3) {
            Ok(device) => check(&device),
            Err(reason) => return skip("the arithmetic rate's kernel", &reason),
        }
    }
    // The time that a simulation takes is no rate.
    let executor = executor(WAYS[0]).expect("it was there");
    assert_eq!(executor.arithmetic_rate(Elem::Bf16).expect("it can be asked"), None);
}
