//! Requests that two parsers could read in two ways: refused, counted, never forwarded, closed.

use bytes::Bytes;
use portico_h1::{BodyDecoder, HeadScan, Limits, parse_request};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::backend::Backend;
use super::rig::Rig;

/// Sends `bytes`; the connection must be closed behind one answer with `status`, counted as `kind`.
#[track_caller]
fn refused(rig: &Rig, backend: &Backend, bytes: &[u8], status: u16, kind: &str) {
    rig.seen.refused.lock().clear();
    let answer = rig.once(bytes);
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{:?} was answered {answer:?}",
        String::from_utf8_lossy(bytes)
    );
    assert_eq!(
        answer.matches("HTTP/1.1").count(),
        1,
        "one answer only: {answer}"
    );
    assert!(
        answer.contains("connection: close\r\n")
            && answer.contains("content-type: application/problem+json\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains(&format!("\"code\":\"gateway.{kind}\""))
            && answer.contains("\"request_id\":\"request-1\""),
        "{answer}"
    );
    assert_eq!(
        rig.seen
            .refused
            .lock()
            .iter()
            .map(|(s, k)| (*s, *k))
            .collect::<Vec<_>>(),
        [(status, kind)]
    );
    assert_eq!(backend.received(), "", "nothing may reach the back end");
}

#[test]
fn smuggling_vectors_never_reach_the_back_end() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (lines, status, kind) in [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            400,
            "length_and_encoding",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            400,
            "length_and_encoding",
        ),
        (
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            400,
            "duplicate_length",
        ),
        (
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            400,
            "duplicate_length",
        ),
        ("Content-Length: 5, 5\r\n", 400, "content_length"),
        ("Content-Length: +5\r\n", 400, "content_length"),
        ("Content-Length: -0\r\n", 400, "content_length"),
        ("Content-Length: 0x10\r\n", 400, "content_length"),
        ("Content-Length: 1_0\r\n", 400, "content_length"),
        ("Content-Length: \r\n", 400, "content_length"),
        (
            "Content-Length: 9223372036854775808\r\n",
            400,
            "content_length",
        ),
        ("Transfer-Encoding: xchunked\r\n", 501, "unknown_encoding"),
        (
            "Transfer-Encoding: gzip, chunked\r\n",
            501,
            "unknown_encoding",
        ),
        ("Transfer-Encoding: ,chunked\r\n", 400, "transfer_encoding"),
        ("Transfer-Encoding: chunked\t\r\n", 400, "transfer_encoding"),
        (
            "Transfer-Encoding: chunked, chunked\r\n",
            400,
            "transfer_encoding",
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            400,
            "transfer_encoding",
        ),
        ("Transfer-Encoding : chunked\r\n", 400, "space_before_colon"),
        ("X: y\r\n Transfer-Encoding: chunked\r\n", 400, "obs_fold"),
        ("X: y\rTransfer-Encoding: chunked\r\n", 400, "field_value"),
        ("X: y\0\r\n", 400, "field_value"),
        ("X: y\nTransfer-Encoding: chunked\r\n", 400, "bare_lf"),
        (": empty\r\n", 400, "field_name"),
        ("Host: b\r\n", 400, "duplicate_host"),
        (
            "Connection: authorization\r\nAuthorization: x\r\n",
            400,
            "connection_nominates",
        ),
        (
            "Connection: X-Portico-User\r\n",
            400,
            "connection_nominates",
        ),
        ("Expect: something\r\n", 417, "expectation"),
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n{smuggled}");
        refused(&rig, &backend, bytes.as_bytes(), status, kind);
    }
}

#[test]
fn broken_heads_are_refused() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let long = "a".repeat(9000);
    let big = "b".repeat(33 * 1024);
    let many = "x: y\r\n".repeat(101);
    for (bytes, status, kind) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "missing_host"),
        (
            "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n".to_owned(),
            400,
            "invalid_host",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(),
            400,
            "invalid_host",
        ),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            400,
            "encoding_in_http10",
        ),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), 400, "bare_lf"),
        (
            "GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(),
            505,
            "version",
        ),
        (
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            400,
            "request_line",
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            501,
            "connect",
        ),
        ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400, "request_line"),
        (
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            414,
            "line_too_long",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nx: {big}\r\n\r\n"),
            431,
            "head_too_large",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
            431,
            "too_many_fields",
        ),
    ] {
        refused(&rig, &backend, bytes.as_bytes(), status, kind);
    }
}

#[test]
fn an_unfinished_head_beyond_the_limit_is_not_waited_for() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    refused(
        &rig,
        &backend,
        format!("GET /{}", "a".repeat(9000)).as_bytes(),
        414,
        "line_too_long",
    );
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}", "b".repeat(40 * 1024));
    refused(&rig, &backend, endless.as_bytes(), 431, "head_too_large");
}

#[test]
fn broken_chunks_end_the_request_and_the_connection() {
    for (chunks, kind) in [
        ("5\r\nhelloX\r\n0\r\n\r\n", "chunk_end"),
        ("0x5\r\nhello\r\n0\r\n\r\n", "chunk_size"),
        ("\r\nhello", "chunk_size"),
        ("ffffffffffffffffff\r\n", "chunk_size"),
        ("5;a\nb\r\nhello\r\n0\r\n\r\n", "chunk_extension"),
        ("5\nhello", "chunk_size"),
        ("0\r\nx: y\n\r\n", "trailer"),
    ] {
        let backend = Backend::echo();
        let rig = Rig::new(&backend);
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let answer = rig.once(request);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{chunks:?}: {answer}");
        assert!(
            answer.contains(&format!("gateway.{kind}")) && answer.contains("connection: close"),
            "{chunks:?}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(!backend.received().contains("smuggled"));
        assert!(
            !backend.received().contains("\r\n0\r\n\r\n"),
            "the back end never sees an end of the body"
        );
        assert_eq!(rig.seen.refused.lock()[0], (400, kind));
    }
}

#[test]
fn a_good_request_before_a_bad_one_is_still_answered() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send("GET /good HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /after HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
    let rest = client.until_close();
    assert!(rest.starts_with("HTTP/1.1 400 "), "{rest}");
    assert!(backend.received().contains("/good") && !backend.received().contains("/after"));
}

/// Runs of bytes from which requests, good and bad, are put together.
fn scraps() -> impl Strategy<Value = Vec<u8>> {
    let scrap = proptest::sample::select(vec![
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\n",
        "GET /y HTTP/1.0\r\n",
        "Content-Length: 4\r\n",
        "Content-Length: 4\n",
        "Content-Length:4\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: \tchunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Connection: close\r\n",
        "Expect: 100-continue\r\n",
        "X: y\r\n",
        "\r\n",
        "\n",
        " ",
        "abcd",
        "4\r\nabcd\r\n",
        "0\r\n\r\n",
        "0\r\nX: y\r\n\r\n",
    ]);
    proptest::collection::vec(scrap, 1..14).prop_map(|scraps| scraps.concat().into_bytes())
}

/// Reads what a back end got; how many whole requests there are, or what is wrong with them.
fn requests_in(mut bytes: &[u8]) -> Result<usize, portico_h1::Error> {
    let mut count = 0;
    while let Some((start, end)) = HeadScan::default().advance(bytes, &Limits::default())? {
        let head = parse_request(&Bytes::copy_from_slice(&bytes[start..end]))?;
        let mut rest = bytes[end..].to_vec();
        let step = BodyDecoder::new(head.framing).decode(&mut rest)?;
        if !step.done {
            return Ok(count);
        }
        bytes = &bytes[end + step.consumed..];
        count += 1;
    }
    Ok(count)
}

#[test]
fn whatever_is_sent_the_back_end_sees_only_well_formed_requests() {
    let config = Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&scraps(), |bytes| {
        let backend = Backend::echo();
        let rig = Rig::new(&backend);
        let mut client = rig.client();
        client.send(&bytes);
        client.shut();
        let answers = client.until_close();
        drop(rig);
        let received = backend.received.lock().clone();
        let whole = requests_in(&received);
        prop_assert!(
            whole.is_ok(),
            "{whole:?}: {:?} became {:?}",
            String::from_utf8_lossy(&bytes),
            String::from_utf8_lossy(&received)
        );
        let good = answers.matches("HTTP/1.1 200 ").count();
        prop_assert!(good <= whole.unwrap_or(0), "no answer without a request");
        Ok(())
    });
    outcome.unwrap();
}
