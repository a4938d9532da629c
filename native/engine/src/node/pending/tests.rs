//! The submission window: each submission leaves it once.

use super::*;
use crate::coarse::TICK_MAX;
use crate::command::Command;

const LONG: Duration = Duration::from_secs(60);

fn pending() -> Pending {
    let pending = Pending::default();
    pending.identify(7, 1);
    pending
}

fn submit(pending: &Pending, body: &'static [u8]) -> u64 {
    pending.submit(Bytes::from_static(body), LONG, Reply::Observer).unwrap()
}

fn take(pending: &Pending, count: usize, bytes: usize) -> Vec<Command> {
    let mut batch = BatchBuilder::default();
    let first = pending.take(count, bytes, Instant::now(), &mut batch);
    let commands = batch.finish(0, 0).decode().unwrap().commands;
    assert_eq!(first, commands.first().map(|command| command.id.sequence));
    commands
}

fn sequences(commands: &[Command]) -> Vec<u64> {
    commands.iter().map(|command| command.id.sequence).collect()
}

fn done(sequence: u64) -> (u64, u64, Outcome) {
    (sequence, sequence + 100, Ok(Bytes::new()))
}

#[test]
fn commands_are_taken_once_and_again_after_a_rewind() {
    let pending = pending();
    for _ in 0..5 {
        submit(&pending, b"x");
    }
    assert_eq!(sequences(&take(&pending, 3, 100)), vec![1, 2, 3]);
    assert_eq!(sequences(&take(&pending, 9, 100)), vec![4, 5]);
    assert!(!pending.has_unsent());
    assert_eq!(pending.resolve([done(1), done(3)].into_iter()).len(), 2);
    pending.rewind(1);
    let again = take(&pending, 9, 100);
    assert_eq!(sequences(&again), vec![2, 4, 5]);
    assert!(again.iter().all(|command| command.low_water == 2));
}

#[test]
fn a_batch_stops_at_its_bytes_but_always_has_one() {
    let pending = pending();
    submit(&pending, &[0; 50]);
    submit(&pending, &[0; 50]);
    assert_eq!(take(&pending, 9, 10).len(), 1);
    assert_eq!(take(&pending, 9, 10).len(), 1);
}

#[test]
fn each_submission_is_answered_exactly_once() {
    let pending = pending();
    let short = pending.submit(Bytes::new(), Duration::ZERO, Reply::Observer).unwrap();
    let long = submit(&pending, b"x");
    let due = pending.expire(Instant::now() + TICK_MAX * 2);
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].0, due[0].2.as_ref().unwrap_err().code), (short, Code::Unavailable));
    assert!(pending.resolve([done(short)].into_iter()).is_empty());
    assert_eq!(pending.outcome(short, 0), Fate::Applied(101));
    assert_eq!(pending.close().len(), 1);
    assert!(pending.resolve([done(long)].into_iter()).is_empty());
    assert_eq!(pending.submit(Bytes::new(), LONG, Reply::Observer).unwrap_err().code, Code::Closed);
}

#[test]
fn a_full_window_refuses_and_registers_nothing() {
    let pending = pending();
    for _ in 0..IN_FLIGHT_MAX {
        submit(&pending, b"");
    }
    let refused = pending.submit(Bytes::new(), LONG, Reply::Observer).unwrap_err();
    assert_eq!(refused.code, Code::Overloaded);
    assert_eq!(pending.in_flight().0, IN_FLIGHT_MAX);
    pending.resolve([done(1)].into_iter());
    assert_eq!(submit(&pending, b""), IN_FLIGHT_MAX as u64 + 1);
    let large = Bytes::from(vec![0; ENTRY_BYTES_MAX + 1]);
    assert_eq!(pending.submit(large, LONG, Reply::Observer).unwrap_err().code, Code::TooLarge);
}

#[test]
fn a_hosted_machine_frees_slots_by_its_acknowledgement() {
    let pending = pending();
    for _ in 0..3 {
        submit(&pending, b"x");
    }
    pending.hand_over([(1, 11), (2, 12), (3, 13)].into_iter());
    pending.acknowledge(12);
    assert_eq!(pending.in_flight(), (1, 1));
    assert_eq!(pending.outcome(3, 0), Fate::Applied(13));
}

#[test]
fn a_host_that_is_quicker_than_the_note_of_what_it_was_given_frees_slots_too() {
    let pending = pending();
    assert_eq!((0..3).map(|_| submit(&pending, b"x")).last(), Some(3));
    pending.acknowledge(12);
    pending.hand_over([(1, 11), (2, 12), (3, 13)].into_iter());
    assert_eq!(pending.in_flight(), (1, 1), "the window's oldest would stay until its deadline");
    pending.acknowledge(13);
    assert_eq!(pending.in_flight(), (0, 0));
}

#[test]
fn a_timed_out_command_is_discarded_once_the_cluster_moved_past_it() {
    let pending = pending();
    let sequence = pending.submit(Bytes::new(), Duration::ZERO, Reply::Observer).unwrap();
    take(&pending, 1, 1);
    assert_eq!(pending.expire(Instant::now() + TICK_MAX * 2)[0].2.as_ref().unwrap_err().code, Code::Timeout);
    assert_eq!(pending.outcome(sequence, 1), Fate::Pending);
    assert_eq!(pending.outcome(sequence, 2), Fate::Discarded);
    assert_eq!(pending.outcome(99, 2), Fate::Unknown);
}

#[test]
fn a_command_that_a_snapshot_covers_is_never_called_discarded() {
    let pending = pending();
    let late = pending.submit(Bytes::new(), Duration::ZERO, Reply::Observer).unwrap();
    let (covered, open) = (submit(&pending, b"x"), submit(&pending, b"y"));
    take(&pending, 9, 100);
    assert_eq!(pending.expire(Instant::now() + TICK_MAX * 2).len(), 1);
    let failure = Failure::new(Code::Timeout, "by snapshot");
    let due = pending.skip(2, |sequence| sequence == covered, &failure);
    assert_eq!(due.iter().map(|due| due.0).collect::<Vec<_>>(), vec![covered]);
    let fates = [late, covered, open].map(|sequence| pending.outcome(sequence, 4));
    assert_eq!(fates, [Fate::Unknown, Fate::Unknown, Fate::Pending]);
}

#[test]
fn what_was_sent_once_is_not_refused_as_if_it_had_no_effect() {
    let pending = pending();
    let (sent, unsent) = (submit(&pending, b"x"), submit(&pending, b"y"));
    take(&pending, 1, 100);
    pending.rewind(0);
    let due = pending.refuse_unsent(&Failure::not_leader());
    assert_eq!(due.iter().map(|due| due.0).collect::<Vec<_>>(), vec![unsent]);
    assert!(!pending.has_unsent());
    assert_eq!(pending.resolve([done(sent)].into_iter()).len(), 1);
}
