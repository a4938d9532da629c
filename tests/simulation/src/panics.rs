//! Panics of a run: counted and kept instead of printed.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

static INSTALLED: Once = Once::new();

/// From now on panics on this thread are kept, until [`take`].
pub fn watch() {
    INSTALLED.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let kept = SEEN.with_borrow_mut(|seen| seen.as_mut().map(|seen| seen.push(info.to_string())));
            if kept.is_none() {
                usual(info);
            }
        }));
    });
    SEEN.set(Some(Vec::new()));
}

/// The panics on this thread since the last call.
pub fn take() -> Vec<String> {
    SEEN.with_borrow_mut(|seen| seen.as_mut().map(std::mem::take).unwrap_or_default())
}

/// Panics are printed again.
pub fn stop() {
    SEEN.set(None);
}
