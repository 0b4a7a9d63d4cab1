//! What AddressSanitizer is told: which bytes of the arena may be touched at all.
//!
//! To the sanitizer one big mapping is all alike, so by itself it would see none of the ring's
//! possible mistakes. Built with `--cfg headwater_asan` the arena tells it: slabs are hidden
//! until written, and again with the last pin. In every other build this does nothing.

#[cfg(headwater_asan)]
unsafe extern "C" {
    fn __asan_poison_memory_region(from: *const std::ffi::c_void, len: usize);
    fn __asan_unpoison_memory_region(from: *const std::ffi::c_void, len: usize);
    #[cfg(test)]
    fn __asan_address_is_poisoned(at: *const std::ffi::c_void) -> std::ffi::c_int;
}

use std::ptr::NonNull;

/// From now on nobody may touch these bytes of the caller's mapping.
pub(super) fn hide(from: NonNull<u8>, len: usize) {
    #[cfg(headwater_asan)]
    // SAFETY: changes the sanitizer's notes on the range, never the range.
    unsafe {
        __asan_poison_memory_region(from.as_ptr().cast(), len);
    }
    let _ = (from, len);
}

/// From now on these bytes may be touched.
pub(super) fn show(from: NonNull<u8>, len: usize) {
    #[cfg(headwater_asan)]
    // SAFETY: as in `hide`.
    unsafe {
        __asan_unpoison_memory_region(from.as_ptr().cast(), len);
    }
    let _ = (from, len);
}

/// Whether touching this byte would be reported.
#[cfg(all(test, headwater_asan))]
pub(super) fn is_hidden(at: NonNull<u8>) -> bool {
    // SAFETY: looks at the sanitizer's notes only.
    unsafe { __asan_address_is_poisoned(at.as_ptr().cast()) != 0 }
}
