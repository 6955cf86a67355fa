//! Draws tokens. The noise and the order of comparisons are exact; only logits closer than their own
//! rounding could be drawn differently from the f64 twin, and random ones are not.

use std::collections::BTreeMap;

use smalti::backend::Executor;
use smalti::backend::cpu::CpuExecutor;
use smalti::checkpoint::Checkpoint;
use smalti::graph::{Draw, Elem, Extent, Graph, NO_ROW, Per, Role, Row, ops};

use crate::common::simt;
use crate::harness::{Case, Random};

fn case(vocab_size: usize, draws: Vec<Draw>, logits: Vec<f32>) -> (Case, ops::Sample) {
    let extent = Extent { rows: logits.len() / vocab_size, draws: draws.len() };
    let mut graph = Graph::new("sample", extent);
    let op = ops::Sample {
        codes: graph.buffer("codes", Elem::U32, Per::Draw, &[4], Role::Output),
        drawn: None,
        rows: graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input),
        draws: graph.buffer("draws", Elem::Draw, Per::Draw, &[], Role::Input),
        logits: graph.buffer("logits", Elem::F32, Per::Row, &[vocab_size], Role::Scratch),
        vocab_size,
        tokens: 4,
        pictures: extent.draws,
    };
    let phase = graph.phase("step");
    graph.push(phase, "sample", op.clone());
    let mut case = Case::new(graph, phase, extent, &mut Random::new(0));
    case.fill(op.logits, logits);
    case.rows = Some((op.rows, vec![Row { position: 3, ..Row::default() }; extent.rows]));
    case.draws = Some((op.draws, draws));
    (case, op)
}

/// A draw without guidance or filters.
fn plain(vocab_size: usize, row: u32) -> Draw {
    Draw {
        cond_row: row,
        uncond_row: NO_ROW,
        token: 2,
        picture: row,
        cfg_scale: 1.0,
        temperature: 1.0,
        top_p: 1.0,
        top_k: vocab_size as u32,
        ..Draw::default()
    }
}

#[test]
fn matches_its_twin() {
    let random = &mut Random::new(7);
    for vocab_size in [1, 7, 16, 300, 16384] {
        for _ in 0..12 {
            // Draw 0 is guided by rows 0 and 1, draw 1 has row 2 alone.
            let mut draws = vec![plain(vocab_size, 0), Draw { cond_row: 2, picture: 1, ..plain(vocab_size, 1) }];
            draws[0].uncond_row = 1;
            for draw in &mut draws {
                draw.seed = random.bits();
                draw.image = random.bits();
                draw.cfg_scale = 1.0 + 5.0 * random.uniform();
                draw.temperature = 0.2 + 2.0 * random.uniform();
                draw.top_k = 1 + random.below(vocab_size) as u32;
                draw.top_p = [1.0, 0.9, 0.3][random.below(3)];
                draw.greedy = u32::from(random.below(4) == 0);
            }
            let logits = random.normals(3 * vocab_size).into_iter().map(|x| 3.0 * x).collect();
            let (case, op) = case(vocab_size, draws, logits);
            let left = case.run_everywhere();
            let twin = case.twin();
            assert_eq!(case.values(&left, op.codes), twin.buffers[op.codes.index()], "vocabulary {vocab_size}");
            let rows: Vec<Row> = bytemuck::cast_slice(&left[op.rows.index()]).to_vec();
            assert_eq!(rows, twin.rows, "the rows moved on");
            let draws: Vec<Draw> = bytemuck::pod_collect_to_vec(&left[op.draws.index()]);
            assert_eq!(draws, twin.draws, "the draws moved on");
        }
    }
}

#[test]
fn one_logit_that_is_no_number_fails_the_draw() {
    for nan in [f32::NAN, -f32::NAN] {
        let mut logits = vec![0.5; 40];
        logits[3] = nan;
        let (case, op) = case(40, vec![Draw { top_k: 7, top_p: 0.5, ..plain(40, 0) }], logits);
        let left = case.run_everywhere();
        assert_eq!(case.values(&left, op.codes)[2], f64::from(ops::NO_CODE));
        assert_eq!(case.twin().buffers[op.codes.index()][2], f64::from(ops::NO_CODE));
        let rows: Vec<Row> = bytemuck::cast_slice(&left[op.rows.index()]).to_vec();
        assert_eq!((rows[0].token, rows[0].position), (0, 4), "the row goes on with a harmless token");
    }
}

#[test]
fn ties_go_to_the_lowest_code() {
    let mut draw = plain(40, 0);
    draw.greedy = 1;
    let mut logits = vec![0.5; 40];
    logits[17] = 2.0;
    logits[33] = 2.0;
    let (case, op) = case(40, vec![draw], logits);
    assert_eq!(case.values(&case.run_everywhere(), op.codes)[2], 17.0);
}

/// Logits of one row: what filters, ties and comparisons could stumble over.
fn hostile_logits(kind: usize, vocab_size: usize, random: &mut Random) -> Vec<f32> {
    let mut logits: Vec<f32> = random.normals(vocab_size).into_iter().map(|x| 3.0 * x).collect();
    match kind {
        0 => {}
        1 => logits.iter_mut().for_each(|x| *x = x.round()), // a dozen values, both zeros among them
        2 => logits.fill(-1.25),
        3 => logits.iter_mut().step_by(2).for_each(|x| *x = f32::NEG_INFINITY),
        4 => logits[vocab_size / 2] = f32::NAN,
        5 => logits[vocab_size / 3] = 1e30,
        6 => logits.iter_mut().for_each(|x| *x *= 1e-3), // nearly uniform: the filters cut deep
        7 => logits.fill(f32::NEG_INFINITY),
        _ => logits.iter_mut().for_each(|x| *x *= 30.0), // few codes have any mass
    }
    logits
}

/// All that a draw leaves, tables included, is bit for bit what the CPU executor leaves.
fn check_kernel(case: &Case, op: &ops::Sample) {
    let expected = case.run(&CpuExecutor::new(2));
    for (executor, left) in case.run_on_cuda() {
        let codes = case.values(&left, op.codes);
        assert_eq!(codes, case.values(&expected, op.codes), "{executor}, vocabulary {}", op.vocab_size);
        // What fills a table up beyond the run is the executor's own.
        for (id, bytes) in
            [(op.rows, case.extent.rows * size_of::<Row>()), (op.draws, case.extent.draws * size_of::<Draw>())]
        {
            let same = left[id.index()][..bytes] == expected[id.index()][..bytes];
            assert!(same, "{executor}, vocabulary {}: `{}` differs", op.vocab_size, case.graph.at(id).name);
        }
    }
}

#[test]
fn the_kernel_draws_what_the_cpu_draws() {
    let random = &mut Random::new(41);
    for (vocab_size, count) in [(1, 4), (37, 60), (1000, 40), (16384, 18)] {
        let (mut draws, mut logits) = (Vec::new(), Vec::new());
        for i in 0..count {
            let mut draw = plain(vocab_size, (logits.len() / vocab_size) as u32);
            draw.picture = i as u32;
            draw.seed = random.bits();
            draw.image = random.bits();
            draw.temperature = [1.0, 0.7, 3.0, 1e-5][random.below(4)];
            draw.top_k = [1, 5, 1000, 2000, vocab_size][random.below(5)].min(vocab_size) as u32;
            draw.top_p = [1.0, 0.999, 0.9, 0.5, 0.1, 1.0 - f32::EPSILON / 2.0][random.below(6)];
            draw.greedy = u32::from(random.below(6) == 0);
            logits.extend(hostile_logits(i % 9, vocab_size, random));
            if random.below(2) == 0 {
                draw.uncond_row = draw.cond_row + 1;
                draw.cfg_scale = 1.0 + 6.0 * random.uniform();
                logits.extend(hostile_logits([0, i % 9][random.below(2)], vocab_size, random));
            }
            draws.push(draw);
        }
        let (case, op) = case(vocab_size, draws, logits);
        check_kernel(&case, &op);
    }
}

/// What models are drawn with, at their vocabulary: guidance, top-k 2000 or 1000, top-p 1 and less.
#[test]
fn the_kernel_draws_at_the_usual_settings() {
    const V: usize = 16384;
    let random = &mut Random::new(43);
    let draws = [(2000, 1.0), (1000, 1.0), (V as u32, 1.0), (2000, 0.9), (V as u32, 0.95)];
    let draws: Vec<Draw> = draws
        .into_iter()
        .zip(0..)
        .map(|((top_k, top_p), i)| Draw {
            uncond_row: 2 * i + 1,
            picture: i,
            image: u64::from(i),
            cfg_scale: 4.0,
            top_k,
            top_p,
            ..plain(V, 2 * i)
        })
        .collect();
    let logits = (0..2 * draws.len()).flat_map(|_| hostile_logits(0, V, random)).collect();
    let (case, op) = case(V, draws, logits);
    check_kernel(&case, &op);
}

/// Five draws are laid out as eight: the three that fill up leave no trace.
#[test]
fn the_kernel_skips_padding() {
    let random = &mut Random::new(47);
    let draws = (0..8).map(|i| plain(50, i)).collect();
    let (mut case, op) = case(50, draws, random.normals(8 * 50));
    (case.extent.draws, case.extent.rows) = (5, 8);
    case.draws.as_mut().expect("it has draws").1.truncate(5);
    case.fill(op.codes, vec![777.0; 8 * 4]);
    check_kernel(&case, &op);
    for (executor, left) in case.run_on_cuda() {
        let codes = case.values(&left, op.codes);
        let written: Vec<usize> = (0..codes.len()).filter(|&i| codes[i] != 777.0).collect();
        assert_eq!(written, [2, 6, 10, 14, 18], "{executor}: one code a draw");
    }
}

#[test]
fn a_vocabulary_that_no_multiprocessor_holds_is_refused() {
    let (case, _) = case(60_000, vec![plain(60_000, 0)], vec![0.0; 60_000]);
    let Ok(executor) = simt::executor(simt::WAYS[0]) else { return };
    let checkpoint = Checkpoint::from_tensors("test", BTreeMap::new(), BTreeMap::new());
    let error = executor.plan(case.graph.clone(), &checkpoint).err().expect("it is refused").to_string();
    assert!(error.contains("`sample` of sample: needs at most 51712 codes, found 60000"), "{error}");
}

/// Chi-square of 20 000 draws with filters against the filtered probabilities, fixed seeds.
#[test]
fn draws_follow_the_filtered_probabilities() {
    const V: usize = 24;
    const DRAWS: usize = 20_000;
    let logits = Random::new(3).normals(V);
    let (temperature, top_k, top_p) = (0.8, 16, 0.9);
    let draws = (0..DRAWS as u64)
        .map(|image| Draw {
            seed: 11,
            image,
            picture: image as u32,
            temperature,
            top_k,
            top_p,
            cond_row: image as u32,
            ..plain(V, 0)
        })
        .collect();
    let (case, op) = case(V, draws, logits.repeat(DRAWS));
    let codes = case.values(&case.run_everywhere(), op.codes);
    let mut counts = [0f64; V];
    for picture in codes.chunks_exact(4) {
        counts[picture[2] as usize] += 1.0;
    }
    // The filters again, by sorting: what `cutoff` promises.
    let mut order: Vec<usize> = (0..V).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order.truncate(top_k as usize);
    let mass: Vec<f64> = order.iter().map(|&v| f64::from(logits[v] / temperature).exp()).collect();
    let total: f64 = mass.iter().sum();
    let mut above = 0.0;
    let kept: Vec<(usize, f64)> = order
        .iter()
        .zip(&mass)
        .filter(|(_, mass)| {
            let keep = above / total <= f64::from(top_p);
            above += **mass;
            keep
        })
        .map(|(&v, &mass)| (v, mass))
        .collect();
    let total: f64 = kept.iter().map(|(_, mass)| mass).sum();
    let chi_square: f64 = kept
        .iter()
        .map(|(v, mass)| {
            let expected = DRAWS as f64 * mass / total;
            assert!(expected > 5.0, "too few draws for chi-square");
            (counts[*v] - expected).powi(2) / expected
        })
        .sum();
    let drawn: f64 = kept.iter().map(|(v, _)| counts[*v]).sum();
    assert_eq!(drawn, DRAWS as f64, "a filtered code was drawn");
    // 99.9 % of chi-square with 23 degrees of freedom lie below 49.7; fewer degrees, lower still.
    assert!(chi_square < 49.7, "chi-square {chi_square:.1} over {} codes", kept.len());
    assert!(kept.len() > 5 && kept.len() < V, "the filters removed something and left something");
}
