//! The allocator of the program, where it must be asked: it keeps what was freed, in the hope of using it again.

/// Gives what this thread has freed back to the kernel.
#[allow(unsafe_code, reason = "a function of the allocator")]
pub fn give_back() {
    // SAFETY: it takes no pointer, may be called by any thread at any time, and frees nothing that is in use.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
