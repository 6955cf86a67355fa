//! Accepts what is sure of windows. Whole numbers alone: every executor leaves the twin's.

use smalti::graph::ops::{self, Guess, NO_CODE};
use smalti::graph::{Draw, Elem, Extent, Graph, NO_ROW, NO_SLOT, Per, Role, Row};

use crate::harness::{Case, Left, Random};

/// P and N of all cases.
const LATENT_SIZE: usize = 5;
const TOKENS: usize = 25;
/// Room in the counts of runs.
const WIDEST: usize = 70;

/// What stands where no code is.
const NONE: u32 = 900;

/// A window of a picture: its first token, the guesses of its rows, and what was drawn.
struct Window {
    token: usize,
    /// (W) the inputs of the rows; the first is the code before `token`
    inputs: Vec<u32>,
    /// (W)
    drawn: Vec<u32>,
    guided: bool,
    guess: Guess,
}

/// Pictures side by side. Codes before a window are 100 times the picture plus the token's number.
fn case(windows: &[Window]) -> (Case, ops::Accept) {
    let (mut rows, mut draws, mut drawn) = (Vec::new(), Vec::new(), Vec::new());
    let mut codes = vec![NONE as f32; windows.len() * TOKENS];
    for (picture, window) in windows.iter().enumerate() {
        for token in 0..window.token {
            codes[picture * TOKENS + token] = (100 * picture + token) as f32;
        }
        for (j, (&token, &code)) in window.inputs.iter().zip(&window.drawn).enumerate() {
            let position = (window.token + j) as u32;
            let inside = window.token + j < TOKENS;
            let row = |slot: usize| Row { slot: slot as u32, position, token, settled: 0 };
            let cond_row = rows.len() as u32;
            if inside {
                rows.extend((0..1 + usize::from(window.guided)).map(|i| row(2 * picture + i)));
            }
            draws.push(Draw {
                cond_row: if inside { cond_row } else { NO_ROW },
                uncond_row: if inside && window.guided { cond_row + 1 } else { NO_ROW },
                token: position,
                picture: picture as u32,
                window: if j == 0 { window.inputs.len() as u32 } else { 0 },
                guess: window.guess as u32,
                ..Draw::default()
            });
            drawn.push(code);
        }
    }
    let extent = Extent { rows: rows.len(), draws: draws.len() };
    let mut graph = Graph::new("accept", extent);
    let op = ops::Accept {
        codes: graph.buffer("codes", Elem::U32, Per::Plan, &[windows.len(), TOKENS], Role::Output),
        sure: graph.buffer("sure", Elem::U32, Per::Plan, &[windows.len()], Role::Output),
        runs: graph.buffer("runs", Elem::U32, Per::Plan, &[windows.len(), WIDEST], Role::State),
        rows: graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input),
        draws: graph.buffer("draws", Elem::Draw, Per::Draw, &[], Role::Input),
        drawn: graph.buffer("drawn", Elem::U32, Per::Draw, &[], Role::Scratch),
        latent_size: LATENT_SIZE,
        tokens: TOKENS,
        window: WIDEST,
        pictures: windows.len(),
    };
    let phase = graph.phase("pass");
    graph.push(phase, "accept", op.clone());
    let mut case = Case::new(graph, phase, extent, &mut Random::new(0));
    case.fill(op.codes, codes);
    // What an f32 cannot hold is the largest u32, as which it is written.
    case.fill(op.drawn, drawn.iter().map(|&code| if code == NO_CODE { f32::INFINITY } else { code as f32 }).collect());
    case.rows = Some((op.rows, rows));
    case.draws = Some((op.draws, draws));
    (case, op)
}

/// Everything that an executor left is what the twin leaves.
fn check(what: &str, case: &Case, op: &ops::Accept) -> Left {
    let left = case.run_everywhere();
    let mut twin = case.twin_before();
    // The number that stands for no code, which went through f32.
    twin.buffers[op.drawn.index()].iter_mut().filter(|x| x.is_infinite()).for_each(|x| *x = f64::from(NO_CODE));
    twin.run(case.phase, case.extent);
    let lefts = std::iter::once(("cpu".to_string(), left.clone())).chain(case.run_on_cuda());
    for (executor, left) in lefts {
        for id in [op.codes, op.sure, op.runs] {
            let name = &case.graph.at(id).name;
            assert_eq!(case.values(&left, id), twin.buffers[id.index()], "{executor}, {what}: {name}");
        }
        let rows: &[Row] = bytemuck::cast_slice(&left[op.rows.index()]);
        let draws: Vec<Draw> = bytemuck::pod_collect_to_vec(&left[op.draws.index()]);
        assert_eq!(rows[..case.extent.rows], twin.rows[..case.extent.rows], "{executor}, {what}: rows");
        assert_eq!(draws[..case.extent.draws], twin.draws[..case.extent.draws], "{executor}, {what}: draws");
    }
    left
}

#[test]
fn the_run_of_right_guesses_and_one_more_are_accepted() {
    // Token 6 on: guesses 41 and 42 are right, 99 is not; the draws behind it, 44 and 45, are guesses now.
    let window = Window {
        token: 6,
        inputs: vec![5, 41, 42, 99, 43],
        drawn: vec![41, 42, 43, 44, 45],
        guided: true,
        guess: Guess::Drawn,
    };
    let (case, op) = case(&[window]);
    let left = check("a hand-made window", &case, &op);
    let codes = case.values(&left, op.codes);
    assert_eq!(codes[5..10], [5.0, 41.0, 42.0, 43.0, f64::from(NONE)]);
    assert_eq!(case.values(&left, op.sure), [9.0]);
    assert_eq!(case.values(&left, op.runs)[..5], [0.0, 0.0, 1.0, 0.0, 0.0]);
    let rows: &[Row] = bytemuck::cast_slice(&left[op.rows.index()]);
    // The last accepted code, two drawn behind a wrong guess, and the codes above tokens 11 and 12.
    let inputs: Vec<(u32, u32, u32)> = rows.iter().map(|row| (row.slot, row.position, row.token)).collect();
    assert_eq!(inputs[..4], [(0, 9, 43), (1, 9, 43), (0, 10, 44), (1, 10, 44)]);
    assert_eq!(inputs[4..], [(0, 11, 45), (1, 11, 45), (0, 12, 41), (1, 12, 41), (0, 13, 42), (1, 13, 42)]);
}

#[test]
fn a_window_ends_with_the_picture() {
    // Two tokens are left, and both are right: nothing remains to be done, in this pass or one that comes after it.
    let window = || Window {
        token: 23,
        inputs: vec![22, 7, 1, 1],
        drawn: vec![7, 8, 777, 777],
        guided: false,
        guess: Guess::Above,
    };
    let (mut case, op) = case(&[window(), window()]);
    let left = check("the last tokens", &case, &op);
    assert_eq!(case.values(&left, op.sure), [25.0, 25.0]);
    let rows: Vec<Row> = bytemuck::cast_slice(&left[op.rows.index()]).to_vec();
    assert!(rows.iter().all(|row| row.slot == NO_SLOT), "{rows:?}");
    let draws: Vec<Draw> = bytemuck::pod_collect_to_vec(&left[op.draws.index()]);
    case.rows = Some((op.rows, rows));
    case.draws = Some((op.draws, draws));
    let again = check("a pass too many", &case, &op);
    let codes = case.values(&again, op.codes);
    assert_eq!(codes[23..25], [f64::from(NONE); 2], "nothing is written");
    assert_eq!(case.values(&again, op.runs).iter().sum::<f64>(), 0.0);
}

#[test]
fn matches_its_twin() {
    let random = &mut Random::new(13);
    for round in 0..40 {
        let windows: Vec<Window> = (0..1 + round % 4)
            .map(|_| {
                let token = random.below(TOKENS);
                let width = [1, 2, 3, 8, 31, 32, 33, 64, 70][random.below(9)];
                let drawn: Vec<u32> = (0..width)
                    .map(|_| if random.below(30) == 0 { NO_CODE } else { random.below(500) as u32 })
                    .collect();
                // Right up to somewhere, then wrong.
                let right = random.below(width + 1);
                let input = |j: usize| match j {
                    0 => 3,
                    _ if j > right => 600,
                    _ if drawn[j - 1] == NO_CODE => 0,
                    _ => drawn[j - 1],
                };
                let inputs = (0..width).map(input).collect();
                Window { token, inputs, drawn, guided: random.below(2) == 0, guess: Guess::ALL[random.below(3)] }
            })
            .collect();
        let (case, op) = case(&windows);
        check(&format!("round {round}"), &case, &op);
    }
}
