//! What requests read: where control and traffic meet.
//!
//! `control` builds tables and installs them; `listener` opens the sockets that they ask for and reports back;
//! the request path reads the root through a data thread's own [`view::View`].

pub mod breaker;
pub mod chain;
pub mod destination;
pub mod ejection;
pub mod endpoint;
pub mod interception;
pub mod keep;
pub mod layout;
pub mod limits;
pub mod load;
pub mod local;
pub mod pace;
pub mod port;
pub mod registry;
pub mod remarks;
pub mod retries;
pub mod root;
pub mod standing;
pub mod view;
