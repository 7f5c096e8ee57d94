//! A BPF array in memory: plain stores, instead of system calls, change the values that packets read.

use std::{
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    num::NonZeroUsize,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::Pod;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// An array map with BPF_F_MMAPABLE whose values are whole 64-bit words.
pub struct Mapped<T> {
    base: NonNull<AtomicU64>,
    length: usize,
    values: PhantomData<T>,
}

// SAFETY: the memory is only touched through atomics, and stays mapped until the last owner drops it.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    const WORDS: usize = size_of::<T>() / 8;

    /// Maps `length` values of an array map, or of a file that stands for one.
    ///
    /// # Errors
    /// `length` is 0, the map does not allow to be mapped (BPF_F_MMAPABLE), or is shorter.
    pub fn new(map: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8), "stored word by word") };
        let bytes = NonZeroUsize::new(length * size_of::<T>()).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { base: base.cast(), length, values: PhantomData })
    }

    /// Returns a word of the value, to be changed alone.
    pub fn word(&self, index: usize, word: usize) -> &AtomicU64 {
        &self.words(index)[word]
    }

    /// Loads the value, word by word: each word is consistent in itself.
    pub fn load(&self, index: usize) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        for (at, word) in self.words(index).iter().enumerate() {
            let word = word.load(Ordering::Acquire);
            // SAFETY: `value` has WORDS words; T may be less aligned than u64.
            unsafe { value.as_mut_ptr().cast::<u64>().add(at).write_unaligned(word) };
        }
        // SAFETY: every word of it was written, and T is plain data.
        unsafe { value.assume_init() }
    }

    /// Stores the value, word by word, first to last.
    pub fn store(&self, index: usize, value: T) {
        let source = std::ptr::from_ref(&value).cast::<u64>();
        for (at, word) in self.words(index).iter().enumerate() {
            // SAFETY: `source` has WORDS words; T may be less aligned than u64.
            word.store(unsafe { source.add(at).read_unaligned() }, Ordering::Release);
        }
    }

    fn words(&self, index: usize) -> &[AtomicU64] {
        assert!(index < self.length, "index {index} of a map of {}", self.length);
        // SAFETY: inside the mapping, which is page-aligned and of whole words.
        unsafe { std::slice::from_raw_parts(self.base.add(index * Self::WORDS).as_ptr(), Self::WORDS) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, not used after this.
        let _ = unsafe { munmap(self.base.cast(), self.length * size_of::<T>()) };
    }
}
