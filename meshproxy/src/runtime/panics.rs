//! Panics are counted where they happen. What panics is one task of a data thread, which is the connection, or one stream
//! of it; everything else goes on.

use std::cell::RefCell;
use std::sync::Once;

use metrics::Counter;

thread_local! {
    static COUNTER: RefCell<Option<Counter>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Counts every panic of this thread from now on.
pub fn count_here(counter: Counter) {
    COUNTER.set(Some(counter));
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // A thread that ends has none any more.
            let _ = COUNTER.try_with(|counter| {
                if let Ok(counter) = counter.try_borrow()
                    && let Some(counter) = &*counter
                {
                    counter.increment(1);
                }
            });
            before(panic);
        }));
    });
}
