//! Random weights and buffers, the same on both executors.

use std::collections::BTreeMap;
use std::sync::Arc;

use half::bf16;
use rayon::prelude::*;

use super::Model;
use crate::Result;
use crate::backend::Plan;
use crate::checkpoint::{Bytes, Checkpoint, DType, Tensor};
use crate::graph::{Buffer, BufferId, Elem, Graph, Weight};

/// A seeded stream.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// One of many, side by side.
    fn of_chunk(key: u64, chunk: usize) -> Self {
        Self(Self(key ^ (chunk as u64) << 40).bits())
    }

    /// SplitMix64.
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// Even over an interval around 0, of variance 1.
    pub fn even(&mut self) -> f32 {
        (self.bits() >> 40) as f32 * (2.0 * SQRT_3 / (1u64 << 24) as f32) - SQRT_3
    }
}

const SQRT_3: f32 = 1.732_050_8;

/// Elements that one thread makes at a time.
const CHUNK: usize = 1 << 16;

/// Weights for a graph, of values that bf16 holds: no executor rounds them.
///
/// Matrices have a variance of 1 / (inputs of one output), tables of 1, norms are around 1 and biases around 0,
/// none of them the same for all channels.
pub fn weights(graph: &Graph) -> Checkpoint {
    let tensor = |name: &str, shape: Vec<usize>| {
        let (centre, spread) = match shape[..] {
            [_] if name.ends_with(".bias") => (0.0, 0.25),
            [_] => (1.0, 0.25),
            [_, ..] if name.contains("embedding") => (0.0, 1.0),
            [_, ref inputs @ ..] => (0.0, (inputs.iter().product::<usize>() as f32).sqrt().recip()),
            [] => (1.0, 0.0),
        };
        let key = key(0, name);
        let mut bytes = vec![0u8; 2 * shape.iter().product::<usize>()];
        bytes.par_chunks_mut(2 * CHUNK).enumerate().for_each(|(chunk, bytes)| {
            let mut random = Random::of_chunk(key, chunk);
            for element in bytes.chunks_exact_mut(2) {
                element.copy_from_slice(&bf16::from_f32(centre + spread * random.even()).to_le_bytes());
            }
        });
        let bytes = Bytes::Owned(Arc::new(bytes));
        Tensor::contiguous(DType::BF16, shape, bytes, 0).expect("the bytes fill the shape")
    };
    let named = graph.weights().iter().flat_map(Weight::tensors);
    let tensors = named.map(|(name, shape)| (name.to_string(), tensor(name, shape))).collect();
    Checkpoint::from_tensors("selftest", tensors, BTreeMap::new())
}

/// Gives every buffer of both plans the same values: tables of the model's rows and draws, codes and bytes of any
/// value, and numbers that bf16 holds.
pub fn fill(model: &Model, seed: u64, expected: &mut dyn Plan, found: &mut dyn Plan) -> Result<()> {
    let ids: Vec<_> = expected.graph().buffer_ids().collect();
    for id in ids {
        let (len, buffer) = (expected.graph().len_of(id), expected.graph().at(id).clone());
        let key = key(seed, &buffer.name);
        match buffer.elem {
            Elem::Row | Elem::Draw => {}
            Elem::U32 => {
                let mut random = Random::new(key);
                let codes: Vec<u32> = (0..len).map(|_| model.code(&mut random)).collect();
                expected.write(id, 0, &codes)?;
                found.write(id, 0, &codes)?;
            }
            Elem::U8 => {
                let mut random = Random::new(key);
                let bytes: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
                expected.write(id, 0, &bytes)?;
                found.write(id, 0, &bytes)?;
            }
            Elem::F32 | Elem::Bf16 => {
                let values = numbers(&buffer, len, key);
                write(expected, id, &values)?;
                write(found, id, &values)?;
            }
        }
    }
    fill_tables(model, expected)?;
    fill_tables(model, found)
}

/// Writes numbers as what the plan holds them as.
fn write(plan: &mut dyn Plan, id: BufferId, values: &[bf16]) -> Result<()> {
    match plan.graph().at(id).elem {
        Elem::Bf16 => plan.write(id, 0, values),
        _ => plan.write(id, 0, &values.par_iter().map(|x| x.to_f32()).collect::<Vec<f32>>()),
    }
}

/// Puts the tables of rows and draws to their beginning.
pub fn fill_tables(model: &Model, plan: &mut dyn Plan) -> Result<()> {
    let ids: Vec<_> = plan.graph().buffer_ids().collect();
    for id in ids {
        match plan.graph().at(id).elem {
            Elem::Row => plan.write(id, 0, &model.rows())?,
            Elem::Draw => plan.write(id, 0, &model.draws())?,
            _ => {}
        }
    }
    Ok(())
}

fn key(seed: u64, name: &str) -> u64 {
    name.bytes().fold(seed, |key, byte| key.wrapping_mul(31).wrapping_add(byte.into()))
}

/// Values for a buffer. Those with a meaning keep to it: logarithms of counts, means beside deviations.
fn numbers(buffer: &Buffer, len: usize, key: u64) -> Vec<bf16> {
    let value = |i: usize, x: f32| match buffer.name.as_str() {
        "prefix_log_n" => x.abs(),
        // (mean, 1 / deviation) in turn, or (mean, variance)
        "stats" | "moments" if i % 2 == 1 => 1.0 + 0.25 * x,
        "stats" | "moments" => 0.25 * x,
        _ => x,
    };
    let mut values = vec![bf16::ZERO; len];
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let mut random = Random::of_chunk(key, chunk);
        for (i, element) in values.iter_mut().enumerate() {
            *element = bf16::from_f32(value(i, random.even()));
        }
    });
    values
}

/// What a plan's buffers hold.
pub struct Left {
    pub name: String,
    pub elem: Elem,
    pub bytes: Vec<u8>,
}

/// Every buffer.
pub fn read(plan: &mut dyn Plan) -> Result<Vec<Left>> {
    let ids: Vec<_> = plan.graph().buffer_ids().collect();
    let read = |id| {
        let mut bytes = vec![0; plan.graph().bytes_of(id)];
        plan.read_bytes(id, 0, &mut bytes)?;
        Ok(Left { name: plan.graph().at(id).name.clone(), elem: plan.graph().at(id).elem, bytes })
    };
    ids.into_iter().map(read).collect()
}
