pub mod disk;
pub mod network;
