//! A cap on the memory that one input may take. libFuzzer looks at the process once a second only and sees nothing of
//! memory that was asked for and never touched.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Most bytes that may be alive at a time.
const LIVE_BYTES_MAX: usize = 512 * 1024 * 1024;

#[global_allocator]
static CAPPED: Capped = Capped { live_bytes: AtomicUsize::new(0) };

/// The system's allocator with a count.
struct Capped {
    live_bytes: AtomicUsize,
}

impl Capped {
    fn add(&self, bytes: usize) {
        let live = self.live_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if live > LIVE_BYTES_MAX {
            // What reports the panic of a test allocates as well.
            self.live_bytes.store(0, Ordering::Relaxed);
            eprintln!("{bytes} bytes more make {live} bytes alive, allowed are {LIVE_BYTES_MAX}");
            eprintln!("{}", std::backtrace::Backtrace::force_capture());
            std::process::abort();
        }
    }

    fn sub(&self, bytes: usize) {
        self.live_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// SAFETY: everything is the system allocator's; this counts beside it.
unsafe impl GlobalAlloc for Capped {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.sub(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.add(size);
        self.sub(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
