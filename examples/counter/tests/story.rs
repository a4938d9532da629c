//! Runs the example as a user does.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn counter(directory: &std::path::Path) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_counter")).arg(directory).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, said)
}

#[test]
fn the_story_holds_and_the_next_run_goes_on_from_its_count() {
    let directory = tempfile::tempdir().unwrap();
    let (output, said) = counter(directory.path());
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("The count is 0."), "{said}");
    assert!(said.contains("+10000 makes 12111"), "{said}");
    assert_eq!(said.matches("a linearizable read gives").count(), 9, "{said}");
    assert!(said.ends_with("All held.\n"), "{said}");

    let (output, said) = counter(directory.path());
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("The count is 12111."), "{said}");
    assert!(said.contains("+10000 makes 24222"), "{said}");
}

#[test]
fn what_cannot_work_is_said_and_not_counted_as_success() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (output, said) = counter(file.path());
    assert!(!output.status.success());
    assert!(!said.contains("All held"));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("FAILED: "));
}
