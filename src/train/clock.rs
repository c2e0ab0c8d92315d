//! Where the time of a run goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Trained;
use super::in_flight::Finished;

/// Steps that the displayed rate is a mean of.
const RECENT: usize = 20;

/// What one step, or some of them, took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Took {
    steps: u64,
    pub seconds: f64,
    /// Of these, how long the devices had nothing to do for want of input.
    waited: f64,
}

impl Took {
    fn add(&mut self, other: Took) {
        self.steps += other.steps;
        self.seconds += other.seconds;
        self.waited += other.waited;
    }

    pub fn steps_per_second(&self) -> f64 {
        self.steps as f64 / self.seconds.max(1e-9)
    }

    /// Share of the time, 0 to 1.
    pub fn input_wait(&self) -> f64 {
        (self.waited / self.seconds.max(1e-9)).clamp(0.0, 1.0)
    }
}

/// Measures training: from when a step could have begun to when it was done.
/// What happens between steps (evaluations) does not count.
pub struct Clock {
    /// When the devices were last known to have nothing left to do.
    free_since: Instant,
    recent: VecDeque<Took>,
    total: Took,
    /// Seconds trained by earlier processes.
    before: f64,
}

impl Clock {
    pub fn new(before: f64) -> Self {
        Self {
            free_since: Instant::now(),
            recent: VecDeque::new(),
            total: Took::default(),
            before,
        }
    }

    /// Training begins, or goes on after a pause, now. No step is under way.
    pub fn start(&mut self) {
        self.free_since = Instant::now();
    }

    /// Counts a step that is done.
    pub fn step(&mut self, step: &Finished) -> Took {
        // The devices were free before the step was enqueued: they waited for
        // its input, as far as that took so long.
        let idle = step.at.saturating_duration_since(self.free_since);
        let seconds = |duration: Duration| duration.as_secs_f64();
        let took = Took {
            steps: 1,
            seconds: seconds(step.done.saturating_duration_since(self.free_since)),
            waited: seconds(idle.min(step.input)),
        };
        self.free_since = step.done;
        self.total.add(took);
        self.recent.push_back(took);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        took
    }

    /// The last steps together.
    pub fn recent(&self) -> Took {
        let mut sum = Took::default();
        self.recent.iter().for_each(|&took| sum.add(took));
        sum
    }

    /// Seconds trained, with those of earlier processes.
    pub fn seconds(&self) -> f64 {
        self.before + self.total.seconds
    }

    /// What this process trained, in batches of `batch`.
    pub fn trained(&self, batch: usize) -> Trained {
        Trained {
            steps: self.total.steps,
            images_per_second: batch as f64 * self.total.steps_per_second(),
            input_wait: self.total.input_wait(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of 100 ms; the second is enqueued while the first runs, the third
    /// 50 ms late, of which its input took 30.
    #[test]
    fn only_time_without_input_is_input_wait() {
        let mut clock = Clock::new(10.0);
        let start = clock.free_since;
        let after = |ms: u64| start + Duration::from_millis(ms);
        let step = |step, at, input, done| Finished {
            step,
            at: after(at),
            input: Duration::from_millis(input),
            done: after(done),
            metrics: Vec::new(),
        };
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        close(clock.step(&step(1, 0, 0, 100)).input_wait(), 0.0);
        let second = clock.step(&step(2, 40, 40, 200));
        close(second.seconds, 0.1);
        close(second.input_wait(), 0.0);
        let third = clock.step(&step(3, 250, 30, 350));
        close(third.seconds, 0.15);
        close(third.input_wait(), 0.03 / 0.15);
        close(clock.seconds(), 10.35);
        close(clock.recent().steps_per_second(), 3.0 / 0.35);
        close(clock.trained(70).images_per_second, 600.0);
    }
}
