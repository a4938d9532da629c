//! Certificates that change while a node runs, and files that are no certificates.

use std::fs;

use super::tls::certificates::Authority;
use super::tls::{World, call, echo, peers_over, serve_on, wire};
use super::*;
use crate::config::TlsFiles;
use crate::transport::tls::Tls;

const OFTEN: Duration = Duration::from_millis(20);

type Reports = Arc<Mutex<Vec<Option<Failure>>>>;

fn watched(files: &TlsFiles) -> (Tls, Reports) {
    let reports = Reports::default();
    let told = reports.clone();
    (Tls::looking_every(OFTEN, files.clone(), Box::new(move |report| told.lock().push(report))).unwrap(), reports)
}

#[tokio::test]
async fn new_files_hold_for_new_connections_and_the_old_ones_go_on() {
    let world = World::new();
    let (mine, theirs) = (world.member("a"), world.member("b"));
    let (tls, reports) = watched(&mine);
    let transport = serve_on(&tls, &echo()).await;
    let before = peers_over(wire(theirs.clone()));
    call(&before, transport.address()).await.unwrap();
    // Another CA altogether, as after the first one's key was stolen.
    let successor = Authority::new();
    successor.issue(&world.path("a"), &["127.0.0.1"]);
    let after = wire(successor.issue(&world.path("c"), &["127.0.0.1"]));
    let served = async {
        while call(&peers_over(after.clone()), transport.address()).await.is_err() {
            sleep(OFTEN).await;
        }
    };
    timeout(SOON, served).await.expect("the new certificates are never used");
    let refused = call(&peers_over(wire(theirs)), transport.address()).await.unwrap_err();
    assert!(refused.message.contains("not signed by the CA"), "{refused}");
    call(&before, transport.address()).await.expect("an open connection must outlive the change");
    assert_eq!(*reports.lock(), [], "nothing was wrong");
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing_and_are_reported_until_they_can() {
    let world = World::new();
    let files = world.member("a");
    let (tls, reports) = watched(&files);
    let transport = serve_on(&tls, &echo()).await;
    let last = || reports.lock().last().cloned();
    let whole = fs::read(&files.cert).unwrap();
    let other = world.member("other");
    let breakages: [(&dyn Fn(), &str); 5] = [
        (&|| fs::write(&files.cert, b"-----BEGIN CERTI").unwrap(), "cert.pem of :tls"),
        (&|| fs::write(&files.cert, vec![b'x'; (1 << 20) + 1]).unwrap(), "more than 1048576 bytes"),
        (&|| fs::remove_file(&files.cert).unwrap(), "cannot be read"),
        (&|| assert!(fs::copy(&other.cert, &files.cert).is_ok()), "does not belong to the certificate"),
        (&|| fs::write(&files.ca, b"").unwrap(), "ca.pem"),
    ];
    let ca = fs::read(&files.ca).unwrap();
    for (damage, said) in breakages {
        damage();
        eventually(said, || {
            last().flatten().is_some_and(|failure| {
                failure.message.contains(said) && failure.message.contains("The former certificates stay in use")
            })
        })
        .await;
        call(&peers_over(wire(world.member("b"))), transport.address()).await.expect("the former ones must serve");
        fs::write(&files.cert, &whole).unwrap();
        fs::write(&files.ca, &ca).unwrap();
        eventually("all clear", || last() == Some(None)).await;
    }
    assert_eq!(reports.lock().len(), 10, "each is reported once: {:?}", reports.lock());
}

#[tokio::test]
async fn what_cannot_be_used_at_the_start_is_refused_with_the_file() {
    let world = World::new();
    let refusal = |change: &dyn Fn(&mut TlsFiles)| {
        let mut files = world.member("a");
        change(&mut files);
        let failure = Tls::new(files, Box::new(|_| ())).err().expect("refused");
        assert_eq!(failure.code, Code::Invalid);
        failure.message
    };
    assert!(refusal(&|files| files.cert = world.path("nowhere.pem")).contains("nowhere.pem of :tls cannot be read"));
    assert!(refusal(&|files| fs::write(&files.key, b"").unwrap()).contains("key.pem of :tls holds no private key"));
    assert!(refusal(&|files| files.cert = files.key.clone()).contains("holds no certificate in PEM"));
    assert!(refusal(&|files| files.key = world.member("z").key).contains("does not belong to the certificate"));
    let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(refusal(&|files| fs::write(&files.ca, garbage).unwrap()).contains("no CA's certificate"));
    assert!(refusal(&|files| fs::write(&files.cert, garbage).unwrap()).contains("cert.pem"));
}

#[tokio::test]
async fn closing_ends_the_looking() {
    let world = World::new();
    let files = world.member("a");
    let (tls, reports) = watched(&files);
    let transport = serve_on(&tls, &echo()).await;
    transport.close().await;
    fs::remove_file(&files.cert).unwrap();
    sleep(OFTEN * 10).await;
    assert_eq!(*reports.lock(), []);
}
