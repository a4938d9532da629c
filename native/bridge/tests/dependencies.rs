//! The engine must build and run without a JVM: nothing that it depends on, however indirectly, is `jni`.

use std::process::Command;

fn tree(package: &str) -> String {
    let arguments = ["tree", "--offline", "--locked", "--edges", "normal,build", "--prefix", "none", "-p", package];
    let out = Command::new(env!("CARGO")).args(arguments).output().expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn the_engine_depends_on_no_jni_and_the_bridge_does() {
    let names_jni = |tree: &str| tree.lines().any(|line| line.starts_with("jni"));
    assert!(!names_jni(&tree("quorate-engine")));
    assert!(names_jni(&tree("quorate-bridge")));
}
