//! The allocator's settings for training.

/// Bytes above which glibc would map and unmap each allocation.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const THRESHOLD_BYTES: i32 = 1 << 30;

/// Keeps freed memory in the process. Every step allocates the same large activations again; mapping them anew makes
/// the kernel zero each page, which costs more than many of the operations on them.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn mallopt(param: i32, value: i32) -> i32;
        }
        const M_TRIM_THRESHOLD: i32 = -1;
        const M_TOP_PAD: i32 = -2;
        const M_MMAP_THRESHOLD: i32 = -3;
        // SAFETY: glibc's mallopt takes any two integers; it is called before threads that allocate exist.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, THRESHOLD_BYTES);
            mallopt(M_TRIM_THRESHOLD, THRESHOLD_BYTES);
            mallopt(M_TOP_PAD, 64 << 20);
        }
    }
}
