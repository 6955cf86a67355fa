//! How long a request may take to count as a good one.

use std::str::FromStr;

use super::Outcome;

/// A bound on one of a request's times, as `vllm bench serve --goodput` has them: `e2el:500`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    metric: Metric,
    seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    /// Until the first event.
    Ttft,
    /// Per token behind it.
    Tpot,
    /// Until the last byte.
    E2el,
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected ttft, tpot or e2el, a colon and milliseconds, as e2el:500; found {text}");
        let (metric, bound) = text.split_once(':').ok_or_else(expected)?;
        let metric = match metric {
            "ttft" => Metric::Ttft,
            "tpot" => Metric::Tpot,
            "e2el" => Metric::E2el,
            _ => return Err(expected()),
        };
        let ms = bound.parse::<f64>().ok().filter(|ms| ms.is_finite() && *ms > 0.0).ok_or_else(expected)?;
        Ok(Self { metric, seconds: 1e-3 * ms })
    }
}

impl Goal {
    /// Whether only a stream has such a time.
    pub fn needs_stream(&self) -> bool {
        self.metric == Metric::Tpot
    }

    /// Whether a request met it; one that failed, or that has no such time, did not.
    pub(super) fn met(self, outcome: &Outcome) -> bool {
        let Ok(reply) = &outcome.reply else { return false };
        let time = match self.metric {
            Metric::Ttft => Some(reply.events[0]),
            Metric::Tpot => reply.seconds_per_token(outcome.latency),
            Metric::E2el => Some(outcome.latency),
        };
        time.is_some_and(|time| time <= self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reply;
    use super::*;

    #[test]
    fn a_request_meets_what_it_is_fast_enough_for() {
        let reply = Reply { events: vec![0.2, 1.0], output_tokens: 5, ..Reply::default() };
        let outcome = Outcome { started: 0.0, latency: 1.0, reply: Ok(reply) };
        for (text, met) in [
            ("ttft:200", true),
            ("ttft:199", false),
            ("tpot:201", true),
            ("tpot:199", false),
            ("e2el:1000", true),
            ("e2el:999", false),
        ] {
            assert_eq!(text.parse::<Goal>().expect(text).met(&outcome), met, "{text}");
        }
        let goal: Goal = "e2el:1e9".parse().expect("a goal");
        assert!(!goal.met(&Outcome { reply: Err("status 500".into()), ..outcome }));
    }

    #[test]
    fn anything_else_is_told() {
        for text in ["", "e2el", "e2el:", "e2el:-1", "e2el:inf", "e2el:fast", "itl:5", "500"] {
            assert!(text.parse::<Goal>().expect_err(text).contains("as e2el:500"), "{text}");
        }
    }
}
