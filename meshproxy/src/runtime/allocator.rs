//! The allocator of the program, and what it is asked beside memory.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{mi_collect, mi_malloc};
use mimalloc::MiMalloc;

/// Whatever is no larger is aligned so without being asked (`MI_MAX_ALIGN_SIZE`), and a word always is.
const NATURAL: usize = 16;

/// mimalloc, asked for memory of no particular alignment wherever that is enough: half of what an allocation costs is
/// the look at it otherwise, and a request makes some thirty.
#[derive(Debug)]
pub struct Allocator;

#[allow(unsafe_code, reason = "what an allocator is")]
// SAFETY: all memory is mimalloc's, so that each of its functions may give back or move what another has handed out; and
// `mi_malloc` aligns as the constant says.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        if align <= size_of::<usize>() || align <= NATURAL && size >= NATURAL {
            // SAFETY: any size is allowed, and the null of a failure is passed on.
            return unsafe { mi_malloc(size) }.cast();
        }
        // SAFETY: the same demands as on this function.
        unsafe { MiMalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the same demands as on this function.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the same demands as on this function.
        unsafe { MiMalloc.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the same demands as on this function.
        unsafe { MiMalloc.realloc(memory, layout, size) }
    }
}

/// Gives what this thread has freed back to the kernel.
#[allow(unsafe_code, reason = "a function of the allocator")]
pub fn give_back() {
    // SAFETY: it takes no pointer, may be called by any thread at any time, and frees nothing that is in use.
    unsafe { mi_collect(true) }
}
