//! Random numbers that a run can repeat, for what draws them by itself and takes no seed: the order of hash maps (kube polls
//! the passes in flight in the order of one) and the jitter of kube's backoff. For tests only: whoever links this replaces
//! libc's `getrandom` for the whole process, and gets the system's own bytes on every thread that did not ask for others.

use std::cell::Cell;
use std::ffi::{c_uint, c_void};

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread draws the numbers of `seed`. Only a thread that has made no hash map yet is repeatable: the
/// standard library draws the keys of its maps once for each thread.
pub fn fix(seed: u64) {
    STATE.set(Some(seed));
    fastrand::seed(seed);
}

/// What libc's function of this name promises.
///
/// # Safety
/// `buffer` must have room for `length` bytes.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    let Ok(Some(state)) = STATE.try_with(Cell::get) else {
        // SAFETY: the kernel's own call, with what the caller vouches for.
        let filled = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(filled).unwrap_or(-1);
    };
    // SAFETY: the caller vouches for the buffer.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    let mut random = fastrand::Rng::with_seed(state);
    random.fill(bytes);
    STATE.set(Some(random.u64(..)));
    length.cast_signed()
}
