//! Matches `graph::ops::accept`.

use super::Context;
use crate::graph::ops::{self, Guess, NO_CODE};
use crate::graph::{Draw, NO_ROW, NO_SLOT, Row};

pub(super) fn run(op: &ops::Accept, cx: &Context<'_>) {
    let draws = cx.buffer::<Draw>(op.draws);
    cx.member.deal(cx.extent.draws, 1, |range| {
        for d in range {
            // SAFETY: the table holds the run's draws. Nobody writes how long windows are.
            let window = unsafe { (*draws.add(d)).window } as usize;
            if window > 0 {
                assert!(d + window <= cx.extent.draws, "a window of {window} draws from {d} on in {:?}", cx.extent);
                accept(op, cx, d, window);
            }
        }
    });
}

/// Accepts from the window whose draws begin with draw `d`.
fn accept(op: &ops::Accept, cx: &Context<'_>, d: usize, window: usize) {
    let rows = cx.buffer::<Row>(op.rows);
    // SAFETY: the window's draws, its rows, and its picture's codes and counts are this member's alone, as `Draw`
    // demands of who writes the table; all are checked before they are touched.
    unsafe {
        let draws = std::slice::from_raw_parts_mut(cx.buffer::<Draw>(op.draws).add(d), window);
        let (picture, token) = (draws[0].picture as usize, draws[0].token as usize);
        if token >= op.tokens {
            return;
        }
        let inside = picture < op.pictures && window <= op.window;
        assert!(inside && draws.iter().flat_map(Draw::rows).all(|r| r < cx.extent.rows), "{:?}", draws[0]);
        let drawn = std::slice::from_raw_parts(cx.buffer::<u32>(op.drawn).add(d), window.min(op.tokens - token));
        let codes = std::slice::from_raw_parts_mut(cx.buffer::<u32>(op.codes).add(picture * op.tokens), op.tokens);
        // What is no number has no code: a harmless token stands for it, here as in one-by-one decoding.
        let input = |code: u32| if code == NO_CODE { 0 } else { code };
        let confirmed = |(draw, before): (&Draw, &u32)| (*rows.add(draw.cond_row as usize)).token == input(*before);
        let accepted = 1 + draws[1..drawn.len()].iter().zip(drawn).take_while(|&pair| confirmed(pair)).count();

        let sure = token + accepted;
        codes[token..sure].copy_from_slice(&drawn[..accepted]);
        *cx.buffer::<u32>(op.sure).add(picture) = sure as u32;
        *cx.buffer::<u32>(op.runs).add(picture * op.window + accepted - 1) += 1;

        let guess = Guess::of(draws[0].guess);
        for (draw, position) in draws.iter_mut().zip(sure..) {
            draw.token = position as u32;
            if position >= op.tokens {
                draw.rows().for_each(|r| (*rows.add(r)).slot = NO_SLOT);
                (draw.cond_row, draw.uncond_row) = (NO_ROW, NO_ROW);
                continue;
            }
            let before = position - 1;
            let code = match drawn.get(before - token) {
                Some(&drawn) if before < sure || guess == Guess::Drawn => drawn,
                _ => codes[guess.like(before, sure, op.latent_size)],
            };
            for r in draw.rows() {
                (*rows.add(r)).token = input(code);
                (*rows.add(r)).position = position as u32;
                (*rows.add(r)).settled = sure as u32;
            }
        }
    }
}
