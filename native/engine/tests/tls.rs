//! Whole nodes that speak TLS, and a node that may not leave loopback.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use quorate_engine::Code;
use quorate_engine::node::Node;
use support::certificates::Authority;
use support::{Cluster, Events, LONG, block_on, code, eventually};

fn start(cluster: &mut Cluster, name: &str, authority: &Authority, directory: &Path) {
    let mut config = cluster.config(name);
    config.tls = Some(authority.issue(&directory.join(name), &["127.0.0.1"]));
    let node = Node::start(config, Arc::new(Events::default())).unwrap();
    cluster.nodes.insert(name.to_string(), node);
}

#[test]
fn a_cluster_on_tls_changes_its_certificates_under_way_and_says_what_is_wrong_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, successor) = (Authority::new(), Authority::new());
    let mut cluster = Cluster::new(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        start(&mut cluster, name, &authority, directory.path());
    }
    cluster.settle();
    cluster.put("a", "k", "1").unwrap();
    let cert = directory.path().join("b/cert.pem");
    fs::write(&cert, "rubbish").unwrap();
    let complains = |complaining: bool| {
        eventually("a word about the file", || {
            let status = cluster.node("b").status();
            // Past problems are told of behind the present one.
            let present = status.split(":last-problems").next().unwrap_or_default();
            present.contains(":problem \"The file") == complaining
        });
    };
    complains(true);
    cluster.put("b", "k", "2").unwrap();
    // All three of another CA: connections that are open stay, and a node that comes back is let in by the new one.
    for name in ["a", "b"] {
        successor.issue(&directory.path().join(name), &["127.0.0.1"]);
    }
    complains(false);
    cluster.stop("c");
    cluster.put("a", "k", "3").unwrap();
    eventually("c, by the new CA", || {
        start(&mut cluster, "c", &successor, directory.path());
        let seen = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            cluster.get_within("c", "k", quorate_engine::session::Consistency::Local, LONG).unwrap().as_deref()
                == Some("3")
        });
        if !seen {
            cluster.stop("c");
        }
        seen
    });
}

#[test]
fn a_member_beyond_loopback_is_not_even_dialled_in_plain_text() {
    let cluster = Cluster::start_all(&["a"]);
    let added = block_on(cluster.node("a").add_member("d", "192.0.2.1:7000", true, LONG));
    let failure = added.clone().unwrap_err();
    assert!(failure.message.contains("not on loopback") && failure.message.contains(":tls"), "{failure}");
    assert_eq!(code(added), Code::Refused);
}
