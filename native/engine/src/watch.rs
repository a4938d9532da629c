//! A value that can be watched, as `tokio::sync::watch` has it; but who waits is woken in the order in which it came. tokio
//! spreads waiters by random numbers that no seed governs, and a simulation must do the same each time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// The value, locked for reading: to be held shortly, and never while waiting.
pub type Ref<'a, T> = RwLockReadGuard<'a, T>;

struct Shared<T> {
    value: RwLock<T>,
    /// Counts changes; written under the value's lock.
    version: AtomicU64,
    bell: Notify,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

/// Changes the value.
pub struct Sender<T>(Arc<Shared<T>>);

/// Watches the value.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// Every sender is gone: the value will never change again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody changes the value any more")
    }
}

impl std::error::Error for Closed {}

/// A watched value that begins as `value`.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        value: RwLock::new(value),
        version: AtomicU64::new(0),
        bell: Notify::new(),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
    });
    (Sender(shared.clone()), Receiver { shared, seen: 0 })
}

impl<T> Sender<T> {
    /// Replaces the value, unless nobody watches: then it comes back.
    pub fn send(&self, value: T) -> Result<(), T> {
        if self.0.receivers.load(Ordering::Acquire) == 0 {
            return Err(value);
        }
        self.send_modify(|present| *present = value);
        Ok(())
    }

    /// Changes the value.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Changes the value; watchers hear of it when `modify` says so. Returns what it said.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        {
            let mut value = self.0.value.write();
            if !modify(&mut value) {
                return false;
            }
            self.0.version.fetch_add(1, Ordering::Release);
        }
        self.0.bell.notify_waiters();
        true
    }

    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.0.value.read()
    }

    /// A watcher that has seen the present value.
    pub fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::AcqRel);
        Receiver { shared: self.0.clone(), seen: self.0.version.load(Ordering::Acquire) }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.senders.fetch_add(1, Ordering::AcqRel);
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.bell.notify_waiters();
        }
    }
}

impl<T> Receiver<T> {
    /// Waits until the value is not the one that was seen last, and counts it as seen. Fails when that will never be.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        changed(&self.shared, &mut self.seen).await
    }

    /// Waits until `holds` of the value, and counts it as seen. Fails when that will never be.
    pub async fn wait_for(&mut self, mut holds: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        let mut closed = false;
        loop {
            {
                let value = self.shared.value.read();
                self.seen = self.shared.version.load(Ordering::Acquire);
                if holds(&value) {
                    return Ok(value);
                }
            }
            if closed {
                return Err(Closed);
            }
            closed = changed(&self.shared, &mut self.seen).await.is_err();
        }
    }

    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.value.read()
    }

    /// The value, which counts as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.value.read();
        self.seen = self.shared.version.load(Ordering::Acquire);
        value
    }
}

async fn changed<T>(shared: &Shared<T>, seen: &mut u64) -> Result<(), Closed> {
    loop {
        // From here on no ring is missed.
        let rung = shared.bell.notified();
        let version = shared.version.load(Ordering::Acquire);
        if version != *seen {
            *seen = version;
            return Ok(());
        }
        if shared.senders.load(Ordering::Acquire) == 0 {
            return Err(Closed);
        }
        rung.await;
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.shared.receivers.fetch_add(1, Ordering::AcqRel);
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn watchers_are_woken_in_the_order_in_which_they_came() {
        let (sender, receiver) = channel(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        runtime().block_on(async {
            let watchers: Vec<_> = (0..50)
                .map(|number| {
                    let (mut receiver, woken) = (receiver.clone(), woken.clone());
                    tokio::spawn(async move {
                        receiver.changed().await.unwrap();
                        woken.lock().push((number, *receiver.borrow()));
                    })
                })
                .collect();
            tokio::task::yield_now().await;
            sender.send(7).unwrap();
            for watcher in watchers {
                watcher.await.unwrap();
            }
        });
        assert_eq!(*woken.lock(), (0..50).map(|number| (number, 7)).collect::<Vec<_>>());
    }

    #[test]
    fn changes_are_seen_once_and_the_last_before_the_end() {
        let (sender, mut receiver) = channel(1);
        runtime().block_on(async {
            assert!(!sender.send_if_modified(|_| false));
            sender.send_modify(|value| *value = 2);
            assert_eq!(*receiver.borrow_and_update(), 2);
            sender.clone().send(3).unwrap();
            drop(sender);
            assert_eq!(receiver.changed().await, Ok(()));
            assert_eq!(*receiver.borrow(), 3);
            assert_eq!(receiver.changed().await, Err(Closed));
            assert_eq!(receiver.wait_for(|value| *value == 3).await.map(|value| *value), Ok(3));
            assert_eq!(receiver.wait_for(|value| *value == 4).await.map(|value| *value), Err(Closed));
        });
    }

    #[test]
    fn who_waits_for_a_value_gets_it_from_another_thread_and_nobody_watching_is_told() {
        let (sender, mut receiver) = channel(0);
        let counting = std::thread::spawn(move || {
            (1..=10_000).for_each(|value| sender.send(value).unwrap_or_default());
            sender
        });
        assert_eq!(runtime().block_on(async { *receiver.wait_for(|value| *value == 10_000).await.unwrap() }), 10_000);
        let sender = counting.join().unwrap();
        drop(receiver);
        assert_eq!(sender.send(5), Err(5));
        let mut late = sender.subscribe();
        sender.send(6).unwrap();
        assert_eq!(runtime().block_on(late.changed()), Ok(()));
    }
}
