//! What the transport asks of the node behind it.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::error::Failure;

use super::handshake::{Identity, Peer};

/// What a node does for those who connect to it. Futures and streams are dropped when their connection ends or the
/// transport closes, at any point where they wait.
pub trait Service: Send + Sync + 'static {
    /// Who this node is now. Asked once a handshake.
    fn identity(&self) -> Identity;

    /// Answers one call. Only kinds below [`super::MEMBER_CALLS_FROM`] come from strangers. A failure reaches the
    /// caller with its code and message.
    fn call(&self, from: Peer, kind: u8, body: Bytes) -> BoxFuture<'static, Result<Bytes, Failure>>;

    /// Answers a stream of append requests, in order, in the streams of frames. `input` ends when the peer ends it or
    /// the connection breaks; the connection ends when the returned stream does.
    fn append_stream(&self, from: Peer, input: BoxStream<'static, Bytes>) -> BoxStream<'static, Bytes>;

    /// Takes in one snapshot: what it covers (`head`) and its file in chunks. `chunks` yields an error, and ends, when
    /// the connection breaks or the file is incomplete. The answer goes back to the sender.
    fn snapshot(
        &self,
        from: Peer,
        head: Bytes,
        chunks: BoxStream<'static, Result<Bytes, Failure>>,
    ) -> BoxFuture<'static, Result<Bytes, Failure>>;
}
