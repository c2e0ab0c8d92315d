//! Waiting for other hosts, up to a deadline.

use std::time::Duration;

use anyhow::Result;

/// Between two looks at whether a wait is excused.
const LOOK: Duration = Duration::from_secs(10);

/// Waits in turns, each of which waits for at most as long as it is told, until
/// one gives something; `None` after `deadline`. Time in which the wait is
/// `excused`, as is asked after each turn, does not count.
///
/// # Errors
/// A turn's.
pub fn wait<T>(
    deadline: Duration,
    excused: &mut dyn FnMut() -> bool,
    mut turn: impl FnMut(Duration) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let pause = LOOK.min(deadline);
    let mut waited = Duration::ZERO;
    loop {
        if let Some(value) = turn(pause)? {
            return Ok(Some(value));
        }
        waited = match excused() {
            true => Duration::ZERO,
            false => waited + pause,
        };
        if waited >= deadline {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excused_time_does_not_count() {
        let deadline = Duration::from_secs(25);
        let mut turns = Vec::new();
        let mut excuses = [false, false, true, false, false, false].into_iter();
        let found = wait(deadline, &mut || excuses.next().unwrap(), |pause| {
            turns.push(pause);
            Ok(None::<()>)
        });
        assert_eq!(found.unwrap(), None);
        // Two that counted, one that was excused, then the deadline.
        assert_eq!(turns, [LOOK; 6]);
        let found = wait(deadline, &mut || false, |_| Ok(Some(7)));
        assert_eq!(found.unwrap(), Some(7));
    }
}
