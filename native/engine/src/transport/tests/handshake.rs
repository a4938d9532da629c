//! Who may talk to whom.

use super::*;

async fn call(from: Identity, transport: &Transport, to: Option<u64>, kind: u8) -> Result<Bytes, Failure> {
    peers(from).call(transport.address(), to, kind, Bytes::from_static(b"hi"), SOON).await
}

async fn open(from: Identity, transport: &Transport, to: u64) -> Result<(), Failure> {
    peers(from).open_append(transport.address(), to, SOON).await.map(|_| ())
}

fn refused(outcome: Result<impl std::fmt::Debug, Failure>) -> String {
    let failure = outcome.unwrap_err();
    assert_eq!(failure.code, Code::Refused, "{failure}");
    failure.message
}

#[tokio::test]
async fn members_of_one_cluster_talk_about_everything() {
    let transport = serve(Arc::new(Echo::new(identity(1, Some(7))))).await;
    assert_eq!(call(identity(2, Some(7)), &transport, Some(1), ECHO).await.unwrap(), "hi");
    assert_eq!(call(identity(2, Some(7)), &transport, None, MEMBERS_ECHO).await.unwrap(), "hi");
    open(identity(2, Some(7)), &transport, 1).await.unwrap();
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_and_the_sentence_names_both_clusters_and_the_node() {
    let transport = serve(Arc::new(Echo::new(identity(1, Some(7))))).await;
    for message in [
        refused(call(identity(2, Some(8)), &transport, None, ECHO).await),
        refused(open(identity(2, Some(8)), &transport, 1).await),
    ] {
        assert!(message.contains("Node \"server1\" belongs to another cluster"), "{message}");
        assert!(message.contains(&"07".repeat(16)) && message.contains(&"08".repeat(16)), "{message}");
        assert!(message.contains("server2"), "{message}");
    }
}

#[tokio::test]
async fn strangers_may_introduce_themselves_and_nothing_else() {
    for (server, client) in [(Some(7), None), (None, Some(7)), (None, None)] {
        let transport = serve(Arc::new(Echo::new(identity(1, server)))).await;
        assert_eq!(call(identity(2, client), &transport, None, ECHO).await.unwrap(), "hi");
        let message = refused(call(identity(2, client), &transport, None, MEMBERS_ECHO).await);
        assert!(message.contains("only introductions"), "{message}");
        let message = refused(open(identity(2, client), &transport, 1).await);
        assert!(message.contains("has not joined"), "{message}");
    }
}

#[tokio::test]
async fn a_node_that_joins_is_a_member_from_then_on_without_anybody_reconnecting_by_hand() {
    let echo = Arc::new(Echo::new(identity(1, Some(7))));
    let transport = serve(echo.clone()).await;
    let me = Arc::new(Mutex::new(identity(2, None)));
    let seen = me.clone();
    let peers = Peers::new(move || seen.lock().clone());
    let member_call = || peers.call(transport.address(), None, MEMBERS_ECHO, Bytes::new(), SOON);
    assert_eq!(member_call().await.unwrap_err().code, Code::Refused);
    me.lock().cluster = Some([7; 16]);
    assert_eq!(member_call().await, Ok(Bytes::new()));
}

#[tokio::test]
async fn a_server_that_joins_is_noticed_too() {
    let echo = Arc::new(Echo::new(identity(1, None)));
    let transport = serve(echo.clone()).await;
    let peers = peers(identity(2, Some(7)));
    let member_call = || peers.call(transport.address(), None, MEMBERS_ECHO, Bytes::new(), SOON);
    assert_eq!(member_call().await.unwrap_err().code, Code::Refused);
    echo.identity.lock().cluster = Some([7; 16]);
    let joined = async {
        while member_call().await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, joined).await.unwrap();
}

#[tokio::test]
async fn a_server_that_gets_another_id_is_found_under_it() {
    let echo = Arc::new(Echo::new(identity(1, Some(7))));
    let transport = serve(echo.clone()).await;
    let peers = peers(identity(2, Some(7)));
    let call = |to| peers.call(transport.address(), Some(to), MEMBERS_ECHO, Bytes::new(), SOON);
    call(1).await.unwrap();
    echo.identity.lock().node = 9;
    let found = async {
        while call(9).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, found).await.unwrap();
}

#[tokio::test]
async fn entries_go_to_the_node_that_was_meant_or_to_none() {
    let transport = serve(Arc::new(Echo::new(identity(1, Some(7))))).await;
    for message in [
        refused(open(identity(2, Some(7)), &transport, 3).await),
        refused(call(identity(2, Some(7)), &transport, Some(3), ECHO).await),
    ] {
        assert!(message.contains("answers node \"server1\" (1), not the node 3"), "{message}");
    }
}

#[tokio::test]
async fn a_group_that_is_not_there_is_refused() {
    let transport = serve(Arc::new(Echo::new(identity(1, Some(7))))).await;
    let message = refused(call(Identity { group: 5, ..identity(2, Some(7)) }, &transport, None, ECHO).await);
    assert!(message.contains("does not host group 5"), "{message}");
}

#[tokio::test]
async fn a_server_that_never_answers_the_handshake_costs_the_callers_time_and_no_more() {
    let silent = tokio::net::TcpListener::bind(HERE).await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let within = Duration::from_millis(100);
    let failure = peers(identity(2, Some(7))).open_append(&address, 1, within).await.err().unwrap();
    assert_eq!(failure.code, Code::Timeout);
    let call = peers(identity(2, Some(7))).call(&address, None, ECHO, Bytes::new(), within).await;
    assert_eq!(call.unwrap_err().code, Code::Timeout);
}

#[tokio::test]
async fn two_transports_on_one_address_exclude_each_other_and_closing_the_first_frees_it() {
    let first = serve(Arc::new(Echo::new(identity(1, None)))).await;
    let address = first.address().to_owned();
    let second = || Transport::listen(&address, Arc::new(EchoService(Arc::new(Echo::new(identity(2, None))))));
    let failure = second().await.err().unwrap();
    assert_eq!(failure.code, Code::AddressInUse);
    assert!(failure.message.contains(&address) && failure.message.contains("another address"), "{failure}");
    first.close().await;
    second().await.unwrap();
}
