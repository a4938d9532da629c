//! What arrives on an open port: garbage, floods, silence, the future.

use bytes::BufMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::*;

/// A HELLO of a peer that speaks versions `min` to `max`, as bytes on the wire.
pub(super) fn hello(min: u16, max: u16, purpose: u8) -> Vec<u8> {
    let mut body = vec![1, 0, 0];
    body.put_slice(b"QRTP");
    body.put_u16_le(min);
    body.put_u16_le(max);
    body.put_u8(1);
    body.put_slice(&[7; 16]);
    body.put_u64_le(2);
    body.put_slice(b"\x07\0\0\0server2\0\0\0\0");
    body.put_u8(1);
    body.put_u64_le(1);
    body.put_u8(purpose);
    framed(&body)
}

pub(super) fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], body].concat()
}

async fn server(warned: &Warned) -> (Transport, tracing::subscriber::DefaultGuard) {
    let guard = tracing::subscriber::set_default(warned.clone());
    let options = TransportOptions { connections_max: 4, handshake: Duration::from_millis(300) };
    let service = Arc::new(EchoService(Arc::new(Echo::new(identity(1, Some(7))))));
    (Transport::listen_on(&wire::Tcp, HERE, service, options).await.unwrap(), guard)
}

/// Sends `data` and returns what comes back until the server closes the connection, which it must.
async fn exchange(transport: &Transport, data: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(transport.address()).await.unwrap();
    // The server may well hang up before it has read everything.
    let _ = stream.write_all(data).await;
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the server must close the connection");
    answer
}

async fn still_serves(transport: &Transport) {
    let peers = peers(identity(2, Some(7)));
    assert_eq!(peers.call(transport.address(), None, ECHO, Bytes::from_static(b"hi"), SOON).await.unwrap(), "hi");
}

#[tokio::test]
async fn random_bytes_close_the_connection_with_a_warning() {
    let warned = Warned::default();
    let (transport, _guard) = server(&warned).await;
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..200 {
        let garbage: Vec<u8> = (0..round)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed as u8
            })
            .chain([0xff; 4])
            .collect();
        exchange(&transport, &garbage).await;
    }
    assert!(warned.contains("Connection from 127.0.0.1"));
    assert!(warned.0.lock().len() < 100, "warnings are not rate-limited");
    still_serves(&transport).await;
}

#[tokio::test]
async fn an_http_request_and_a_handshake_with_noise_inside_are_told_apart_from_quorate() {
    let warned = Warned::default();
    let (transport, _guard) = server(&warned).await;
    exchange(&transport, b"GET / HTTP/1.1\r\n\r\n").await;
    let whole = hello(1, 1, 1);
    for len in 7..whole.len() - 4 {
        let answer = exchange(&transport, &framed(&whole[4..4 + len - 4])).await;
        assert_eq!(answer[4], 3, "cut at {len}: {answer:?} is no refusal");
    }
    still_serves(&transport).await;
}

#[tokio::test]
async fn a_frame_over_the_limit_of_the_handshake_is_not_even_buffered() {
    let warned = Warned::default();
    let (transport, _guard) = server(&warned).await;
    exchange(&transport, &u32::MAX.to_le_bytes()).await;
    exchange(&transport, &5000u32.to_le_bytes()).await;
    assert!(warned.contains("sent a frame of more than 4096 bytes"));
    still_serves(&transport).await;
}

#[tokio::test]
async fn after_the_handshake_an_oversized_or_misplaced_frame_closes_the_connection() {
    let warned = Warned::default();
    let (transport, _guard) = server(&warned).await;
    for purpose in [1, 2, 3] {
        for bad in [u32::MAX.to_le_bytes().to_vec(), framed(&[99, 0, 0]), framed(&[4, 9, 0]), framed(&[4])] {
            exchange(&transport, &[hello(1, 1, purpose), bad].concat()).await;
        }
        let short_request = framed(&[4, 0, 0, 1, 2]);
        exchange(&transport, &[hello(1, 1, purpose), short_request].concat()).await;
    }
    assert!(warned.contains("sent a frame of"));
    still_serves(&transport).await;
}

#[tokio::test]
async fn a_peer_of_a_newer_protocol_gets_a_sentence_that_a_person_understands() {
    let warned = Warned::default();
    let (transport, _guard) = server(&warned).await;
    let mut future = hello(2, 3, 1);
    future.truncate(4 + 3 + 8);
    future.extend_from_slice(b"whatever the future brings");
    let answer = exchange(&transport, &framed(&future[4..])).await;
    assert_eq!(answer[4], 3);
    let sentence = String::from_utf8(answer[8..].to_vec()).unwrap();
    assert!(sentence.contains("speaks versions 1 to 1 of the protocol"), "{sentence}");
    assert!(sentence.contains("speaks 2 to 3"), "{sentence}");
    assert!(warned.contains("speaks 2 to 3"));
    // A peer that still speaks version 1 as well is welcome in version 1.
    let mut stream = TcpStream::connect(transport.address()).await.unwrap();
    stream.write_all(&hello(1, 9, 1)).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!((head[4], head[7]), (2, 1));
}

#[tokio::test]
async fn the_server_itself_refuses_another_cluster_and_entries_for_another_node() {
    let warned = Warned::default();
    let (transport, _guard) = server(&warned).await;
    let of_another_cluster = [&hello(1, 1, 1)[..16], &[8; 16], &hello(1, 1, 1)[32..]].concat();
    let mut for_another_node = hello(1, 1, 2);
    let to = for_another_node.len() - 9;
    for_another_node[to] = 3;
    for (hello, sentence) in [(of_another_cluster, "another cluster"), (for_another_node, "not the node 3")] {
        let answer = exchange(&transport, &hello).await;
        assert_eq!(answer[4], 3);
        assert!(String::from_utf8_lossy(&answer).contains(sentence), "{:?}", String::from_utf8_lossy(&answer));
        assert!(warned.contains(sentence));
    }
}

#[tokio::test]
async fn a_snapshot_that_is_shorter_or_longer_than_announced_is_an_error_for_the_service() {
    let echo = Arc::new(Echo::new(identity(1, Some(7))));
    let transport = serve(echo.clone()).await;
    let head = framed(&[&[9, 0, 0][..], &10u64.to_le_bytes()].concat());
    let chunk = |len: usize| framed(&[&[10, 0, 0][..], &vec![1; len]].concat());
    let end = framed(&[11, 0, 0]);
    for chunks in [chunk(9), chunk(11), [chunk(5), chunk(6)].concat()] {
        *echo.snapshot.lock() = None;
        exchange(&transport, &[hello(1, 1, 3), head.clone(), chunks, end.clone()].concat()).await;
        assert!(matches!(*echo.snapshot.lock(), Some(Err(_))), "{:?}", echo.snapshot.lock());
    }
    exchange(&transport, &[hello(1, 1, 3), head, chunk(10), end].concat()).await;
    assert_eq!(*echo.snapshot.lock(), Some(Ok(10)));
}

#[tokio::test]
async fn a_peer_that_says_nothing_or_half_a_word_loses_its_connection() {
    let warned = Warned::default();
    let (transport, _guard) = server(&warned).await;
    exchange(&transport, b"").await;
    exchange(&transport, &hello(1, 1, 1)[..20]).await;
    assert!(warned.contains("did not answer the handshake within 300 ms"));
    still_serves(&transport).await;
}

#[tokio::test]
async fn beyond_the_limit_connections_are_refused_with_a_reason_and_served_again_when_others_leave() {
    let warned = Warned::default();
    let (transport, _guard) = server(&warned).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(transport.address()).await.unwrap();
        stream.write_all(&hello(1, 1, 1)).await.unwrap();
        stream.read_u32().await.unwrap();
        open.push(stream);
    }
    let answer = exchange(&transport, b"").await;
    assert_eq!(answer[4], 3);
    assert!(String::from_utf8_lossy(&answer).contains("limit of 4 connections"));
    assert!(warned.contains("limit of 4 connections"));
    drop(open);
    let served = async {
        let peers = peers(identity(2, Some(7)));
        while peers.call(transport.address(), None, ECHO, Bytes::new(), SOON).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, served).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_asks_and_never_reads_does_not_fill_the_memory() {
    let echo = Arc::new(Echo::new(identity(1, Some(7))));
    let transport = serve(echo.clone()).await;
    let mut stream = TcpStream::connect(transport.address()).await.unwrap();
    stream.write_all(&hello(1, 1, 1)).await.unwrap();
    let mut request = vec![4, 0, 0];
    request.put_u64_le(1);
    request.put_u8(ECHO);
    request.extend_from_slice(&[0; 100_000]);
    let request = framed(&request);
    let mut sent = 0usize;
    // At some point the server must stop reading, so the socket fills and writing stops.
    while let Ok(written) = timeout(Duration::from_millis(500), stream.write_all(&request)).await {
        written.unwrap();
        sent += request.len();
        assert!(sent < 256 << 20, "the server reads on and on");
    }
    let other = peers(identity(3, Some(7)));
    assert_eq!(other.call(transport.address(), None, ECHO, Bytes::new(), SOON).await, Ok(Bytes::new()));
}
