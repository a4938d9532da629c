//! What the machinery of `tests/crash` and of `tests/simulation` shares: the check of histories for linearizability
//! ([`linear`]) and random numbers that depend on a seed alone ([`rng`]).
#![forbid(unsafe_code)]

pub mod linear;
pub mod rng;
