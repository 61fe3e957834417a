//! What requests read: where control and traffic meet.
//!
//! `control` builds tables and installs them; `listener` opens the sockets that they ask for and reports back;
//! the request path reads the root through a data thread's own [`view::View`].

pub mod destination;
pub mod endpoint;
pub mod interception;
pub mod load;
pub mod local;
pub mod registry;
pub mod remarks;
pub mod root;
pub mod standing;
pub mod view;
