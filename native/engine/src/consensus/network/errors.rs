//! What a failure of the transport is to openraft.

use openraft::errors::{NetworkError, RPCError, Unreachable};

use crate::consensus::types::TypeConfig;
use crate::error::Failure;

/// A node that cannot be reached, or does not answer: openraft pauses before it tries again.
pub(super) fn unreachable(failure: &Failure) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(failure))
}

/// A connection that broke: openraft tries again at once, which tells whether the node can be reached.
pub(super) fn broken(failure: &Failure) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(failure))
}
