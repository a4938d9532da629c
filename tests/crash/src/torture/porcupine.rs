//! A key's history as porcupine-rs wants it: the checker that decides. The search of `quorate_linear`, which the simulation needs because it
//! is bounded in steps and not in time, must come to the same.

use std::time::Duration;

use porcupine_rs::{CheckResult, Model, Operation as Checked, check_operations_timeout};

use crate::linear::{ABSENT, Act, Operation, Value};

/// How long it may search for one key.
const PATIENCE: Duration = Duration::from_secs(30);

/// A register that begins absent.
#[derive(Clone)]
struct Register;

impl Model for Register {
    type State = Value;
    type Op = Act;
    type Metadata = ();

    fn init() -> Value {
        ABSENT
    }

    fn step(state: &Value, act: &Act) -> (bool, Value) {
        match *act {
            Act::Read(value) => (*state == value, *state),
            Act::Write(value) => (true, value),
            Act::Cas(expected, value, won) => {
                let same = *state == expected;
                (won.is_none_or(|won| won == same), if same { value } else { *state })
            }
        }
    }
}

/// Whether `operations` are linearizable; `None` when the search was given up.
pub fn decide(operations: &[Operation]) -> Option<bool> {
    // What may take effect at any later time, or never, returns at the very end.
    let at = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    let history = operations.iter().map(|operation| Checked::<Register> {
        client_id: None,
        call_time: at(operation.call),
        return_time: operation.done.map_or(i64::MAX, at),
        op: operation.act,
        metadata: None,
    });
    match check_operations_timeout(&history.collect::<Vec<_>>(), PATIENCE) {
        CheckResult::Ok => Some(true),
        CheckResult::Illegal => Some(false),
        CheckResult::Unknown => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::linear::{Verdict, check};
    use crate::rng::Rng;

    /// Four to nine operations of few values that overlap by chance.
    fn random(rng: &mut Rng) -> Vec<Operation> {
        let count = rng.range(4, 9);
        let some = (0..count).map(|_| {
            let call = rng.range(0, 40);
            let done = rng.chance(80).then(|| call + rng.range(1, 15));
            let mut value = || rng.range(0, 3) as Value;
            let (one, other) = (value(), value());
            let act = match (rng.range(0, 3), done) {
                (0, Some(_)) => Act::Read(one),
                (1, _) => Act::Write(one.max(1)),
                (_, None) => Act::Cas(one, other.max(1), None),
                (_, Some(_)) => Act::Cas(one, other.max(1), Some(true)),
            };
            Operation { call, done, act }
        });
        some.collect()
    }

    #[test]
    fn both_checkers_come_to_the_same() {
        let mut found = [0; 2];
        for seed in 0..5_000 {
            let history = random(&mut Rng::new(seed));
            let decided = decide(&history).unwrap();
            assert_eq!(check(&history) == Verdict::Linearizable, decided, "seed {seed}: {history:?}");
            found[usize::from(decided)] += 1;
        }
        assert!(found.iter().all(|count| *count > 500), "{found:?}");
    }
}
