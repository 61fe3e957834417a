//! A data thread's own hold on the root: one pointer is compared for each request, and no counter is shared
//! between threads.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::root::{Root, Roots};

/// A root as a data thread holds it.
pub type Held = Rc<Arc<Root>>;

/// Sees each new root at its next look.
#[derive(Debug)]
pub struct View {
    roots: Arc<Roots>,
    held: RefCell<Held>,
}

impl View {
    /// A view of what `roots` holds.
    pub fn new(roots: Arc<Roots>) -> View {
        let held = RefCell::new(Rc::new(roots.load()));
        View { roots, held }
    }

    /// The current root.
    pub fn root(&self) -> Held {
        let mut held = self.held.borrow_mut();
        if !self.roots.is_current(&held) {
            *held = Rc::new(self.roots.load());
        }
        Rc::clone(&held)
    }

    /// Where it looks.
    pub fn roots(&self) -> &Arc<Roots> {
        &self.roots
    }
}
