//! The network under real openraft cores, and under a follower that does as it is told.

mod cluster;
mod fuzz;
mod hostile;
mod memory;
mod node;
mod pipelining;
mod scripted;

use std::time::Duration;

use crate::transport::Identity;

const SOON: Duration = Duration::from_secs(30);
const CLUSTER: [u8; 16] = [7; 16];

fn identity(node: u64) -> Identity {
    Identity { cluster: Some(CLUSTER), group: 0, node, name: format!("server{node}"), address: String::new() }
}
