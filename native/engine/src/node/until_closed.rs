//! Files of a node, in use for no longer than the node.

use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::error::Failure;
use crate::node::apply_queue::ApplyQueue;

/// Reads or writes until the node closes; then it fails, so that nothing keeps a closed node's directory in use.
pub struct UntilClosed<S> {
    /// What is read or written.
    pub stream: S,
    /// Closed with the node.
    pub queue: Arc<ApplyQueue>,
}

impl<S> UntilClosed<S> {
    fn check(&self) -> io::Result<()> {
        if self.queue.is_closed() { Err(Failure::closed().into()) } else { Ok(()) }
    }
}

impl<S: Read> Read for UntilClosed<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.stream.read(out)
    }
}

impl<S: Write> Write for UntilClosed<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.stream.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
