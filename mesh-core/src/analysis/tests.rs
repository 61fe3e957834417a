//! Each finding once, and what must not be found.
