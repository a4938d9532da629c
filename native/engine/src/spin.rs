//! Waiting awake, for a moment.
//!
//! A write goes from thread to thread and from node to node: host, core, log, core, the others' cores and logs, core, applying thread.
//! To wake a thread that sleeps takes longer than most of them work on it. So a thread that has reason to expect more within
//! microseconds does not sleep at once: it looks again and again for a short window, and gives its processor to any other
//! thread between two looks.
//!
//! Two things send it to sleep earlier. When the last windows passed in vain, ever more waits go without one. And when giving
//! way took long, the processors are busy with other work (a collection of garbage, say): whoever only gives way then
//! gets its turn by the scheduler's time slices, while whoever sleeps is woken at once.

use std::cell::RefCell;
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

/// Waits without a window after the longest series of windows that passed in vain.
const IN_VAIN_MAX: u32 = 64;
/// Waits without a window after the processors were found busy again and again.
const BUSY_MAX: u32 = 1_024;
/// Who gives way and is not back after so long shares the processor with threads that use up their time slices.
const AWAY_MAX: Duration = Duration::from_millis(1);

/// Decides, for one thread, whether to wait awake.
#[derive(Debug)]
pub struct Spin {
    window: Duration,
    until: Option<Instant>,
    /// Whether it gave way since the window began.
    turned: bool,
    penalty: u32,
    skip: u32,
}

impl Spin {
    /// Waits awake for at most `window` at a time; never, when that is zero.
    pub const fn new(window: Duration) -> Spin {
        Spin { window, until: None, turned: false, penalty: 0, skip: 0 }
    }

    /// There was work, and there may be more soon: a window begins.
    pub fn expect(&mut self) {
        if self.window.is_zero() {
            return;
        }
        if self.until.is_some() && self.turned {
            self.penalty = 0;
        } else if self.until.is_none() && self.skip > 0 {
            self.skip -= 1;
            return;
        }
        self.turned = false;
        self.until = Some(Instant::now() + self.window);
    }

    /// Gives way to other threads once. False when there is no window: it is time to sleep.
    pub fn turn(&mut self) -> bool {
        let Some(until) = self.until else { return false };
        let before = Instant::now();
        if before >= until {
            self.close(IN_VAIN_MAX);
            return false;
        }
        thread::yield_now();
        self.turned = true;
        if before.elapsed() > AWAY_MAX {
            self.close(BUSY_MAX);
        }
        self.until.is_some()
    }

    /// The window ends without work: the first time for nothing, then for twice as many waits without one each time.
    fn close(&mut self, skip_max: u32) {
        self.until = None;
        self.skip = self.penalty.min(skip_max);
        self.penalty = (self.penalty * 2).clamp(1, skip_max.max(self.penalty));
    }
}

struct Here {
    spin: Spin,
    root: Option<Waker>,
}

thread_local! {
    /// Of the thread that [`awake`] runs on.
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// On a node's own thread: there was work, and there may be more soon. Nothing on any other thread.
pub fn expect() {
    HERE.with_borrow_mut(|here| here.iter_mut().for_each(|here| here.spin.expect()));
}

/// For a runtime to call before it sleeps (`on_thread_park`): in a window it wakes the future that the runtime blocks on, so that the
/// runtime looks at its sockets and timers and comes back instead.
pub fn before_sleep() {
    HERE.with_borrow_mut(|here| {
        if let Some(Here { spin, root }) = here
            && let Some(root) = root
            && spin.turn()
        {
            root.wake_by_ref();
        }
    });
}

/// Runs `future` as the one that this thread's runtime blocks on, waiting awake for at most `window` at a time. It is polled at each
/// look, so it must be cheap.
pub async fn awake<F: Future>(window: Duration, future: F) -> F::Output {
    let here = Here { spin: Spin::new(window), root: None };
    HERE.set(Some(here));
    let mut future = std::pin::pin!(future);
    let output = std::future::poll_fn(|context| {
        HERE.with_borrow_mut(|here| {
            if let Some(Here { root: root @ None, .. }) = here {
                *root = Some(context.waker().clone());
            }
        });
        future.as_mut().poll(context)
    });
    let output = output.await;
    HERE.set(None);
    output
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(5);

    /// Turns until it is time to sleep; how often.
    fn exhaust(spin: &mut Spin) -> u32 {
        let mut turns = 0;
        while spin.turn() {
            turns += 1;
        }
        turns
    }

    #[test]
    fn windows_that_pass_in_vain_become_rare_and_one_that_does_not_brings_them_back() {
        let mut spin = Spin::new(Duration::from_nanos(1));
        let mut windows = 0;
        for _ in 0..10_000 {
            spin.expect();
            windows += u32::from(spin.until.is_some());
            exhaust(&mut spin);
        }
        assert!((100..=200).contains(&windows), "{windows} of 10,000");
        spin.window = WINDOW;
        while spin.until.is_none() {
            spin.expect();
        }
        spin.turned = true;
        spin.expect();
        assert_eq!((spin.penalty, spin.until.is_some()), (0, true), "it was worth it");
    }

    #[test]
    fn busy_processors_put_it_to_sleep_for_ever_longer_but_not_for_one_bad_moment() {
        let mut spin = Spin::new(WINDOW);
        let mut skips = Vec::new();
        for _ in 0..13 {
            spin.close(BUSY_MAX);
            skips.push(spin.skip);
        }
        assert_eq!((skips[0], skips[1], skips[4], skips[12]), (0, 1, 8, BUSY_MAX));
        spin.close(IN_VAIN_MAX);
        assert_eq!(spin.skip, IN_VAIN_MAX, "an idle processor is forgiven sooner");
        spin.skip = 0;
        spin.expect();
        spin.turned = true;
        spin.expect();
        spin.close(BUSY_MAX);
        assert_eq!(spin.skip, 0, "there was work in between");
    }

    #[test]
    fn a_window_ends_and_without_one_there_is_no_waiting() {
        let mut spin = Spin::new(WINDOW);
        assert!(!spin.turn(), "nothing was expected");
        spin.expect();
        let began = Instant::now();
        exhaust(&mut spin);
        assert!(
            began.elapsed() >= WINDOW || began.elapsed() > AWAY_MAX,
            "it ends at its end, or when processors are busy"
        );
        let mut never = Spin::new(Duration::ZERO);
        never.expect();
        assert!(!never.turn());
    }

    #[test]
    fn a_runtime_that_waits_awake_still_sees_what_others_send_and_sleeps_in_the_end() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().on_thread_park(before_sleep).build().unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(2));
            sender.send(7).unwrap();
        });
        let task = async move {
            tokio::spawn(async {
                expect();
                receiver.await.unwrap()
            })
            .await
        };
        assert_eq!(runtime.block_on(awake(WINDOW, task)).unwrap(), 7);
        other.join().unwrap();
        assert!(HERE.with_borrow(Option::is_none));
    }
}
