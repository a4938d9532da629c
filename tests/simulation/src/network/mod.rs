//! A network on simulated time: streams that keep their order and are delayed, held up by partitions, broken; datagrams
//! that are lost, delayed, overtaken and doubled.

mod pipe;
mod state;
#[cfg(test)]
mod tests;
mod weather;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use quorate_linear::rng::Rng;

use state::State;
pub use state::{Datagram, Traffic};
pub use weather::{Blocked, Weather};
pub use wire::SimWire;

/// The network of one cluster. Cloning shares it.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

impl Network {
    /// A network between the nodes that `names` (addresses and names alike) stand for.
    pub fn new(rng: Rng, names: BTreeMap<String, usize>) -> Network {
        Network(Arc::new(Mutex::new(State::new(rng, names))))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// It is `now` (ms): hands over what streams have for then.
    pub fn deliver(&self, now: u64) {
        with_wakers(self, |state, wake| {
            state.now = now;
            state.deliver(wake);
        });
    }

    /// The datagrams that are due.
    pub fn arrivals(&self) -> Vec<Datagram> {
        self.lock().arrivals()
    }

    /// Sends a datagram to the node called `to`; false when there is none.
    pub fn send_datagram(&self, from: usize, to: &str, bytes: &[u8]) -> bool {
        self.lock().send_datagram(from, to, Bytes::copy_from_slice(bytes))
    }

    /// The network works so from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Changes which ways are blocked.
    pub fn block(&self, change: impl FnOnce(&mut Blocked)) {
        change(&mut self.lock().blocked);
    }

    /// Breaks every connection between `one` and `other`.
    pub fn reset(&self, one: usize, other: usize) {
        with_wakers(self, |state, wake| state.reset(one, other, wake));
    }

    /// The process of `node` is gone, or its machine's power.
    pub fn kill(&self, node: usize, power_cut: bool) {
        with_wakers(self, |state, wake| state.kill(node, power_cut, wake));
    }

    /// What it did so far.
    pub fn traffic(&self) -> Traffic {
        self.lock().traffic
    }
}

/// Works on the network's state; who has to be woken is, once it is unlocked: waking may drop a task that has an end of a
/// connection.
fn with_wakers<T>(network: &Network, work: impl FnOnce(&mut State, &mut Vec<Waker>) -> T) -> T {
    let mut wake = Vec::new();
    let done = work(&mut network.lock(), &mut wake);
    wake.into_iter().for_each(Waker::wake);
    done
}
