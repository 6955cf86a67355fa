//! Draws tokens. The noise and the order of comparisons are exact; only logits closer than their own
//! rounding could be drawn differently from the f64 twin, and random ones are not.

use smalti::graph::{Draw, Elem, Extent, Graph, NO_ROW, Per, Role, Row, ops};

use crate::harness::{Case, Random};

fn case(vocab_size: usize, draws: Vec<Draw>, logits: Vec<f32>) -> (Case, ops::Sample) {
    let extent = Extent { rows: logits.len() / vocab_size, draws: draws.len() };
    let mut graph = Graph::new("sample", extent);
    let op = ops::Sample {
        codes: graph.buffer("codes", Elem::U32, Per::Draw, &[4], Role::Output),
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
        let (case, op) = case(40, vec![Draw { top_k: 7, ..plain(40, 0) }], logits);
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
