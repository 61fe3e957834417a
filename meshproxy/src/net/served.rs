//! The connections of clients that one data thread serves: who wants the idle ones gone finds them here.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use foldhash::fast::RandomState;

use super::activity::Activity;

/// The connections.
#[derive(Debug, Default)]
pub struct Served {
    all: RefCell<HashMap<u64, (Arc<Activity>, Waker), RandomState>>,
    next: Cell<u64>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Entered {
    all: Rc<Served>,
    number: u64,
}

impl Served {
    /// The connection that this task serves is one of them from now on.
    pub async fn enter(self: &Rc<Served>, activity: &Arc<Activity>) -> Entered {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let number = self.next.get();
        self.next.set(number + 1);
        self.all.borrow_mut().insert(number, (Arc::clone(activity), waker));
        Entered { all: Rc::clone(self), number }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.borrow().len()
    }

    /// Ends those on which nothing is under way; tells how many these are.
    pub fn end_idle(&self) -> u64 {
        let mut ended = 0;
        for (activity, waker) in self.all.borrow().values() {
            if activity.end_if_idle() {
                waker.wake_by_ref();
                ended += 1;
            }
        }
        ended
    }

    /// Cuts the one on which most is under way; tells whether there is one.
    pub fn cut_busiest(&self) -> bool {
        let all = self.all.borrow();
        let open = all.values().filter(|(activity, _)| activity.is_busy() && !activity.is_cut());
        let Some((activity, waker)) = open.max_by_key(|(activity, _)| activity.under_way()) else {
            return false;
        };
        activity.cut();
        waker.wake_by_ref();
        true
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.all.all.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn idle_ones_end_and_others_do_not() {
        const MINUTE: Duration = Duration::from_secs(60);
        let served = Rc::new(Served::default());
        let (busy, idle) = (Arc::new(Activity::default()), Arc::new(Activity::default()));
        let _under_way = busy.begin();
        let serve = |activity: Arc<Activity>| {
            let served = &served;
            async move {
                let _entered = served.enter(&activity).await;
                tokio::time::timeout(Duration::from_secs(1), activity.idle(MINUTE, MINUTE)).await.is_ok()
            }
        };
        let end = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            (served.end_idle(), served.end_idle())
        };
        assert_eq!(tokio::join!(serve(busy), serve(idle), end), (false, true, (1, 0)));
        assert!(served.all.borrow().is_empty());
        let (busy, busier) = (Arc::new(Activity::default()), Arc::new(Activity::default()));
        let _under_way = [busy.begin(), busier.begin(), busier.begin()];
        let cut = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            served.cut_busiest()
        };
        assert_eq!(tokio::join!(serve(busy), serve(busier), cut), (false, true, true));
        assert!(!served.cut_busiest(), "nobody is left");
    }
}
