//! How a proxy gives way when it runs short of something: it takes no new streams, no new connections, closes the idle
//! ones, and at last, before the kernel ends everything, those that carry most.
//!
//! Each begins at a step of its own and ends `SLACK` below it, so that a proxy does not go to and fro.

/// What a proxy does to give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Yielding {
    /// It takes no new streams: requests, tunnels.
    pub streams: bool,
    /// It takes no new connections.
    pub connections: bool,
    /// It closes idle connections.
    pub idle: bool,
    /// It cuts connections that are busy.
    pub busy: bool,
}

impl Yielding {
    /// Whether it gives way at all.
    pub fn any(self) -> bool {
        self.streams || self.connections || self.idle || self.busy
    }
}

/// From which share of what there is on a proxy gives way, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// From here on it takes no new streams.
    pub streams: u32,
    /// From here on it takes no new connections.
    pub connections: u32,
    /// From here on it closes idle ones.
    pub idle: u32,
    /// From here on it cuts busy ones; `None` for never.
    pub busy: Option<u32>,
}

/// Of memory: between the steps lies what goes on filling while nothing new is taken. What was taken already may still
/// fill its windows, so the last step must be.
pub const MEMORY: Steps = Steps { streams: 850, connections: 920, idle: 960, busy: Some(1_000) };

/// Of descriptors: the last tenth is headroom. A new connection takes one for certain, a new stream only perhaps.
pub const DESCRIPTORS: Steps = Steps { streams: 950, connections: 900, idle: 950, busy: None };

/// So much lower must the share be before it is over.
const SLACK: u32 = 50;

/// How a proxy gives way that gave way like this before, and now uses so much of what there is.
pub fn yielding(steps: Steps, before: Yielding, used: u64, most: u64) -> Yielding {
    let share = u128::from(used) * 1_000 / u128::from(most.max(1));
    let holds = |from: u32, before: bool| {
        let from = if before { from.saturating_sub(SLACK) } else { from };
        share >= u128::from(from)
    };
    Yielding {
        streams: holds(steps.streams, before.streams),
        connections: holds(steps.connections, before.connections),
        idle: holds(steps.idle, before.idle),
        busy: steps.busy.is_some_and(|from| holds(from, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn gives(streams: bool, connections: bool, idle: bool) -> Yielding {
        Yielding { streams, connections, idle, busy: false }
    }

    const CALM: Yielding = gives(false, false, false);
    const ALL: Yielding = gives(true, true, true);

    #[test]
    fn it_gives_way_step_by_step_and_back() {
        let check = |before: Yielding, used: u64, expected: Yielding| {
            assert_eq!(yielding(MEMORY, before, used, 1_000), expected, "{used} after {before:?}");
        };
        for (used, expected) in [
            (0, CALM),
            (849, CALM),
            (850, gives(true, false, false)),
            (919, gives(true, false, false)),
            (920, gives(true, true, false)),
            (960, ALL),
            (999, ALL),
            (1_000, Yielding { busy: true, ..ALL }),
            (u64::MAX, Yielding { busy: true, ..ALL }),
        ] {
            check(CALM, used, expected);
        }
        check(Yielding { busy: true, ..ALL }, 999, ALL);
        check(ALL, 910, ALL);
        check(ALL, 909, gives(true, true, false));
        check(ALL, 869, gives(true, false, false));
        check(gives(true, false, false), 800, gives(true, false, false));
        check(gives(true, false, false), 799, CALM);
        check(ALL, 0, CALM);
        assert!(ALL.any() && !CALM.any());
    }

    #[test]
    fn descriptors_keep_their_headroom() {
        let check = |used: u64, expected: Yielding| {
            assert_eq!(yielding(DESCRIPTORS, CALM, used, 256), expected, "{used}");
        };
        check(230, CALM);
        check(231, gives(false, true, false));
        check(244, ALL);
        assert_eq!(yielding(DESCRIPTORS, CALM, 1, 0), ALL, "without any there is no room");
    }
}
