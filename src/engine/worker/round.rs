//! What a round does with the device: steps, looks, paints, collects.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::super::request::{Event, Image, Timings};
use super::{Drawn, Given, InFlight, Worker};
use crate::generate::Finished;
use crate::{Error, Result};

/// How long a round's steps may take: what cancelling and joining wait for. Longer rounds save nothing.
const ROUND: Duration = Duration::from_millis(4);

/// Steps of a round on a device that runs ahead, and how many rounds it may be ahead of what was seen.
const STEPS_AHEAD: usize = 8;
const ROUNDS_AHEAD: usize = 2;

/// The longest wait for a device that is ahead, in case that what it draws cannot be seen.
const PATIENCE: Duration = Duration::from_millis(20);

impl Worker {
    /// A round's steps of all pictures in flight.
    pub(super) fn draw(&mut self) -> Result<()> {
        if self.in_flight.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let (session, _) = self.generator.parts();
        let steps = if session.runs_ahead() { STEPS_AHEAD } else { self.steps };
        let tokens = session.advance(steps)?;
        let each = tokens.div_ceil(self.in_flight.len());
        self.in_flight.iter_mut().for_each(|picture| picture.asked += each);
        if session.runs_ahead() {
            self.keep_pace()?;
        }
        let took = started.elapsed();
        let step = took / each.max(1) as u32;
        self.steps = (ROUND.as_nanos() / step.as_nanos().max(1)).clamp(1, self.width as u128) as usize;
        self.stats.tokens += tokens as u64;
        self.stats.rounds += 1;
        self.stats.drawing += took;
        Ok(())
    }

    /// Waits while the device is more than some rounds behind: requests could not join or leave otherwise.
    fn keep_pace(&mut self) -> Result<()> {
        let (session, _) = self.generator.parts();
        let until = Instant::now() + PATIENCE;
        loop {
            let mut behind = usize::MAX;
            for picture in &self.in_flight {
                behind = behind.min(picture.asked.saturating_sub(session.peek(picture.ticket)?.len()));
            }
            if behind <= ROUNDS_AHEAD * STEPS_AHEAD || Instant::now() >= until {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Looks at what was drawn and tells of whole rows.
    pub(super) fn look(&mut self) -> Result<()> {
        let (session, _) = self.generator.parts();
        for picture in &mut self.in_flight {
            let tokens = session.peek(picture.ticket)?.len();
            let active = self.active.iter_mut().find(|active| active.number == picture.owner).expect("it is active");
            if tokens > 0 && active.timings.first_token.is_zero() {
                active.timings.first_token = active.reply.age();
            }
            let rows = tokens / self.width;
            if rows == picture.rows {
                continue;
            }
            // The whole picture is no preview.
            let previews = active.request.previews;
            let passed = |rows: usize| (rows * (previews + 1) / self.width).min(previews);
            picture.preview_due |= rows < self.width && passed(rows) > passed(picture.rows);
            picture.rows = rows;
            active.reply.send(Event::Rows { index: picture.index, rows });
        }
        Ok(())
    }

    /// Paints what is drawn, as much as the device paints at once, or else a preview.
    pub(super) fn paint_next(&mut self) -> Result<()> {
        if self.drawn.is_empty() { self.paint_preview() } else { self.paint_drawn() }
    }

    fn paint_drawn(&mut self) -> Result<()> {
        let started = Instant::now();
        let (_, painter) = self.generator.parts();
        let count = painter.together().min(self.drawn.len());
        let drawn: Vec<Drawn> = self.drawn.drain(..count).collect();
        let codes: Vec<&[u32]> = drawn.iter().map(|drawn| drawn.codes.as_slice()).collect();
        let pictures = painter.paint_all(&codes)?;
        let took = started.elapsed();
        self.stats.painting += took;
        let mut owners = BTreeSet::new();
        for (Drawn { owner, index, codes }, picture) in drawn.into_iter().zip(pictures) {
            let active = self.active.iter_mut().find(|active| active.number == owner).expect("it is active");
            let (number, seed) = (active.request.first_image + index as u64, active.sampling.seed);
            let Given { condition, prompt_cut } = &active.given[index / active.request.count];
            let (condition_tokens, prompt_cut) = (condition.tokens(), prompt_cut.clone());
            active.done += 1;
            self.stats.images += 1;
            // Pictures of a request that are painted at once share the time.
            if owners.insert(owner) {
                active.timings.painting += took;
            }
            let image = Image { index, number, seed, condition_tokens, prompt_cut, codes, picture };
            active.reply.send(Event::Image(image));
        }
        for owner in owners {
            let active = self.active.iter().find(|active| active.number == owner).expect("it is active");
            if active.done == active.request.images() {
                let timings = Timings { total: active.reply.age(), ..active.timings };
                self.drop_request(owner, Ok(timings));
            }
        }
        Ok(())
    }

    fn paint_preview(&mut self) -> Result<()> {
        let started = Instant::now();
        let (session, painter) = self.generator.parts();
        let Some(due) = self.in_flight.iter_mut().find(|picture| picture.preview_due) else { return Ok(()) };
        let mut codes = session.peek(due.ticket)?;
        let rows = codes.len() / self.width;
        fill(&mut codes, self.width, session.tokens());
        let picture = painter.paint(&codes)?;
        let number = due.previews;
        due.previews += 1;
        due.preview_due = false;
        let took = started.elapsed();
        self.stats.previews += 1;
        self.stats.painting += took;
        let active = self.active.iter_mut().find(|active| active.number == due.owner).expect("it is active");
        active.timings.painting += took;
        active.reply.send(Event::Preview { index: due.index, number, rows, picture });
        Ok(())
    }

    /// Takes the pictures that have all their codes.
    pub(super) fn collect(&mut self) -> Result<()> {
        let started = Instant::now();
        let (session, _) = self.generator.parts();
        let (in_flight, active, drawn) = (&mut self.in_flight, &mut self.active, &mut self.drawn);
        let taken = session.finish(|Finished { ticket, codes }| {
            let at = in_flight.iter().position(|picture| picture.ticket == ticket).expect("it was started");
            let InFlight { owner, index, .. } = in_flight.remove(at);
            let active = active.iter_mut().find(|active| active.number == owner).expect("it is active");
            active.timings.drawing = active.reply.age().saturating_sub(active.begun_after);
            drawn.push_back(Drawn { owner, index, codes });
        });
        self.stats.drawing += started.elapsed();
        match taken {
            Err(Error::Mismatch { what, expected, found, hint }) => {
                let failed = || Error::Mismatch {
                    what: what.clone(),
                    expected: expected.clone(),
                    found: found.clone(),
                    hint: hint.clone(),
                };
                self.fail_lost(failed)
            }
            other => other,
        }
    }

    /// Ends the requests of pictures that drew no code though they were to: logits that are no numbers. Others go
    /// on.
    fn fail_lost(&mut self, failed: impl Fn() -> Error) -> Result<()> {
        let (session, _) = self.generator.parts();
        let mut owners = Vec::new();
        for picture in &self.in_flight {
            if picture.asked > 0 && session.peek(picture.ticket)?.is_empty() {
                owners.push(picture.owner);
            }
        }
        owners.into_iter().for_each(|owner| self.drop_request(owner, Err(failed())));
        Ok(())
    }
}

/// Makes a picture of `tokens` codes from the first ones: each column's last code goes on downwards, and where there
/// is none yet, the last one of all.
fn fill(codes: &mut Vec<u32>, width: usize, tokens: usize) {
    while codes.len() < tokens {
        let above = codes.len().checked_sub(width).and_then(|at| codes.get(at));
        let code = above.or(codes.last()).copied().unwrap_or(0);
        codes.push(code);
    }
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn columns_go_on_downwards() {
        let filled = |codes: &[u32]| {
            let mut codes = codes.to_vec();
            fill(&mut codes, 3, 9);
            codes
        };
        assert_eq!(filled(&[1, 2, 3, 4]), [1, 2, 3, 4, 2, 3, 4, 2, 3]);
        assert_eq!(filled(&[1]), [1; 9]);
        assert_eq!(filled(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}
