//! What goes on on an HTTP/1 connection: enough to see with one look in a while that nothing does.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// A connection on which no request begins and none is under way from one look to the next counts as idle: after 30 to
/// 60 seconds, also in the middle of a head. A timer for each request would cost more than the look.
const LOOK: Duration = Duration::from_secs(30);

/// Counts the exchanges of one connection.
#[derive(Debug, Default)]
pub struct Activity {
    begun: Cell<u64>,
    under_way: Cell<u32>,
}

impl Activity {
    /// An exchange begins; it is under way until the guard is dropped.
    pub fn begin(self: &Rc<Activity>) -> UnderWay {
        self.begun.set(self.begun.get() + 1);
        self.under_way.set(self.under_way.get() + 1);
        UnderWay(Rc::clone(self))
    }

    /// Whether nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.under_way.get() == 0
    }

    /// Resolves when nothing has begun or been under way between two looks.
    pub async fn idle(&self) {
        let mut seen = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let now = (self.under_way.get() == 0).then(|| self.begun.get());
            if now.is_some() && seen == now {
                return;
            }
            seen = now;
        }
    }
}

/// An exchange that is under way, until its answer has been written.
#[derive(Debug)]
pub struct UnderWay(Rc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_only_when_nothing_begins_or_goes_on() {
        let activity = Rc::new(Activity::default());
        let long = activity.begin();
        let still_busy = tokio::time::timeout(LOOK * 10, activity.idle()).await;
        assert!(still_busy.is_err());
        drop(long);
        let begins_again = async {
            for _ in 0..5 {
                tokio::time::sleep(LOOK - Duration::from_secs(1)).await;
                drop(activity.begin());
            }
        };
        tokio::select! {
            () = activity.idle() => panic!("not idle"),
            () = begins_again => {}
        }
        assert!(tokio::time::timeout(LOOK * 3, activity.idle()).await.is_ok());
    }
}
