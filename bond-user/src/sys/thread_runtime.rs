//! A runtime for one thread, which another thread creates.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// A runtime that is created inside another one. If its thread cannot be started, the value is dropped inside the
/// other runtime. tokio panics then, unless the runtime is shut down in the background.
pub struct ThreadRuntime(Option<Runtime>);

impl ThreadRuntime {
    /// # Errors
    /// The kernel refuses the runtime's resources.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Some(Builder::new_current_thread().enable_all().build()?)))
    }

    /// Calls `open` in the context of this runtime, which registers its sockets.
    pub fn inside<T>(&self, open: impl FnOnce() -> T) -> T {
        let _inside = self.0.as_ref().map(Runtime::enter);
        open()
    }

    /// Drives `work` to its end on the calling thread, which is in no runtime. Returns its result.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.0.as_ref().map(|runtime| runtime.block_on(work))
    }
}

impl Drop for ThreadRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_runtime_that_was_not_started_is_dropped_inside_another() {
        let runtime = ThreadRuntime::new().unwrap();
        let refused: Result<(), io::Error> = runtime.inside(|| Err(io::ErrorKind::AddrInUse.into()));
        drop(runtime);
        assert!(refused.is_err());
    }
}
