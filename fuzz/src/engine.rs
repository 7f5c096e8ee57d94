//! libFuzzer, which is linked as a library: the test's process has a `main` of its own.

use std::{
    ffi::{CString, c_char, c_int},
    panic, process, ptr, slice,
    sync::OnceLock,
};

// Its build script compiles libFuzzer.
use libfuzzer_sys as _;

unsafe extern "C" {
    /// Runs the callback until the arguments say that it is enough. It ends the process when an input makes it crash.
    fn LLVMFuzzerRunDriver(
        argument_count: *mut c_int,
        arguments: *mut *mut *mut c_char,
        run: unsafe extern "C" fn(*const u8, usize) -> c_int,
    ) -> c_int;
}

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

/// Runs a target with these arguments of libFuzzer, one a line.
///
/// # Panics
/// An argument has a zero byte.
pub fn run(arguments: &str, run: fn(&[u8])) {
    TARGET.get_or_init(|| run);
    // libFuzzer writes the input to a file when the process aborts, not when a test unwinds.
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        print(panic);
        process::abort();
    }));
    let lines = std::iter::once("fuzz").chain(arguments.lines());
    let words: Vec<_> = lines.map(|line| CString::new(line).expect("arguments are text")).collect();
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr().cast_mut()).collect();
    pointers.push(ptr::null_mut());
    let mut count = c_int::try_from(words.len()).expect("there are a few arguments");
    let mut vector = pointers.as_mut_ptr();
    // SAFETY: as many pointers to texts as `count` says, and a null; they outlive the call. The callback is ours.
    let code = unsafe { LLVMFuzzerRunDriver(&raw mut count, &raw mut vector, one) };
    assert_eq!(code, 0, "libFuzzer failed");
}

unsafe extern "C" fn one(data: *const u8, size: usize) -> c_int {
    // SAFETY: libFuzzer's bytes, for the time of this call.
    let input = if size == 0 { &[] } else { unsafe { slice::from_raw_parts(data, size) } };
    if let Some(target) = TARGET.get() {
        target(input);
    }
    0
}

/// What libfuzzer-sys expects of a program that leaves `main` to it.
#[unsafe(no_mangle)]
extern "C" fn rust_fuzzer_test_input(data: *const u8, size: usize) -> i32 {
    // SAFETY: as in `one`.
    unsafe { one(data, size) }
}
