//! What passes through: requests and answers in every framing, both ways.

use std::io::Write;

use super::backend::Backend;
use super::rig::{Rig, Setup};
use crate::serve::{Outcome, ServeLimits};

#[test]
fn a_request_reaches_the_back_end_byte_by_byte_as_expected() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send("GET /a%2Fb//c?x=%00&y HTTP/1.1\r\nHOST: example.com\r\nAccept: */*\r\nX-Two: 1\r\nX-Two: 2\r\nConnection: keep-alive, X-Hop\r\nX-Hop: gone\r\nTE: trailers\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.status(), 200);
    let (line, fields) = answer.text().split_once("\r\n").unwrap();
    assert_eq!(line, "GET /a%2Fb//c?x=%00&y HTTP/1.1");
    let mut fields: Vec<_> = fields.trim_end().split("\r\n").collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "accept: */*",
            "host: example.com",
            "te: trailers",
            "x-two: 1",
            "x-two: 2"
        ]
    );
    assert!(answer.header("date").is_some());
}

#[test]
fn connections_are_kept_on_both_sides() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    for i in 0..50 {
        client.send(format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.answer();
        assert!(answer.text().starts_with(&format!("GET /{i} ")));
        assert_eq!(answer.header("connection"), None);
    }
    assert_eq!(backend.connections(), 1);
    assert!(
        rig.ends(50)
            .iter()
            .all(|e| e.outcome == Outcome::Complete && e.sent > 0)
    );
    assert_eq!(rig.control().totals().requests, 50);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    let mut wire = String::new();
    for i in 0..20 {
        let body = "x".repeat(i);
        wire.push_str(&format!(
            "POST /{i} HTTP/1.1\r\nHost: a\r\nContent-Length: {i}\r\n\r\n{body}"
        ));
    }
    client.send(wire);
    for i in 0..20 {
        let answer = client.answer();
        assert!(
            answer.text().starts_with(&format!("POST /{i} ")),
            "{}",
            answer.text()
        );
        assert!(
            answer
                .text()
                .ends_with(&format!("\r\n\r\n{}", "x".repeat(i)))
        );
    }
}

#[test]
fn heads_in_single_bytes_are_put_together() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    for byte in b"POST /drip HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" {
        client.send([*byte]);
    }
    assert!(client.answer().text().ends_with("\r\n\r\nabc"));
}

#[test]
fn chunk_framing_is_made_anew_and_trailers_pass() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
         000005;ext=\"1\"\r\nhello\r\n6\r\n world\r\n0;last\r\nx-sum: 42\r\nContent-Length: 9\r\n\r\n",
    );
    let text = client.answer().text().to_owned();
    assert!(text.contains("transfer-encoding: chunked\r\n"), "{text}");
    let body = text.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(body, "b\r\nhello world\r\n0\r\nx-sum: 42\r\n\r\n");
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.answer().text().starts_with("GET /next"));
    assert_eq!(backend.connections(), 1);
}

#[test]
fn chunked_answers_pass_with_their_trailers() {
    let backend = Backend::answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n2\r\nde\r\n0\r\ngrpc-status: 0\r\nSet-Cookie: evil\r\n\r\n");
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.answer();
        assert_eq!(
            (answer.text(), answer.trailers.as_str()),
            ("abcde", "grpc-status: 0\n")
        );
    }
    assert_eq!(
        backend.connections(),
        1,
        "a chunked answer keeps its connection"
    );
}

#[test]
fn an_answer_until_close_becomes_chunked_or_stays_so_for_old_clients() {
    let backend = Backend::new(|mut served| {
        if served.request().is_some() {
            served.send("HTTP/1.1 200 OK\r\nX: y\r\n\r\nsome bytes");
        }
    });
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer();
    assert_eq!(
        (answer.header("transfer-encoding"), answer.text()),
        (Some("chunked"), "some bytes")
    );
    let old = rig.once("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    assert!(
        old.contains("connection: close\r\n") && old.ends_with("\r\n\r\nsome bytes"),
        "{old}"
    );
    assert!(!old.contains("chunked"));
}

#[test]
fn http_1_0_keeps_its_connection_only_when_asked() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.answer().header("connection"), Some("keep-alive"));
    }
    assert!(
        rig.once("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
            .contains("connection: close\r\n")
    );
}

#[test]
fn head_answers_have_the_length_and_no_body() {
    let backend =
        Backend::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"x\"\r\n\r\n");
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.head();
        assert!(
            head.contains("content-length: 1000\r\n") && head.contains("etag: \"x\"\r\n"),
            "{head}"
        );
        assert!(!head.contains("chunked"));
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn bodiless_statuses_pass() {
    for (answer, expect) in [
        (
            &b"HTTP/1.1 204 No Content\r\n\r\n"[..],
            "HTTP/1.1 204 No Content\r\n",
        ),
        (
            b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 7\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\n",
        ),
    ] {
        let backend = Backend::answering(answer);
        let rig = Rig::new(&backend);
        let mut client = rig.client();
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let head = client.head();
            assert!(head.starts_with(expect), "{head}");
            assert!(!head.contains("transfer-encoding"));
        }
        assert_eq!(backend.connections(), 1);
    }
}

#[test]
fn interim_answers_of_the_back_end_are_not_taken_for_the_answer() {
    let backend = Backend::answering(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text()), (200, "ok"));
}

#[test]
fn large_bodies_stream_both_ways() {
    let size = 5_000_000;
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    let body: Vec<u8> = (0..size)
        .map(|i| b'a' + u8::try_from(i % 23).unwrap())
        .collect();
    let mut sender = client.stream.try_clone().unwrap();
    let sent = body.clone();
    let sending = std::thread::spawn(move || {
        sender
            .write_all(
                format!("PUT /big HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")
                    .as_bytes(),
            )
            .unwrap();
        sender.write_all(&sent).unwrap();
    });
    let answer = client.answer();
    sending.join().unwrap();
    assert!(answer.body.ends_with(&body));
    let end = rig.ends(1)[0];
    assert_eq!((end.received, end.outcome), (size, Outcome::Complete));
}

#[test]
fn a_body_that_is_streamed_while_it_is_answered_does_not_deadlock() {
    let backend = Backend::new(|mut served| {
        served.head().unwrap();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut got = Vec::new();
        while !got.windows(7).any(|w| w == b"\r\n0\r\n\r\n") {
            let some = served.some().unwrap();
            let text = some.len().to_string();
            served.send(format!("{:x}\r\n{text}\r\n", text.len()));
            got.extend(some);
        }
        served.send("0\r\n\r\n");
    });
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(client.head().contains("chunked"));
    for _ in 0..5 {
        client.send("4\r\nping\r\n");
        assert_eq!(
            client.line(),
            "1",
            "an answer to each piece before the next is sent"
        );
        client.line();
    }
    client.send("0\r\n\r\n");
    while client.line() != "0" {}
}

#[test]
fn continue_is_sent_when_the_body_is_wanted_and_never_forwarded() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    let text = client.answer().text().to_owned();
    assert!(
        text.ends_with("\r\n\r\nhello") && !text.contains("expect"),
        "{text}"
    );
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
}

#[test]
fn an_early_answer_to_an_expecting_client_closes_without_continue() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let answer = rig.once(
        "POST /early HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.contains("connection: close\r\n"),
        "{answer}"
    );
    assert_eq!(backend.received(), "");
}

#[test]
fn an_early_answer_keeps_the_connection_when_the_rest_is_short() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send(format!(
        "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{}",
        "x".repeat(50_000)
    ));
    assert_eq!(client.answer().status(), 401);
    client.send("y".repeat(50_000));
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.answer().text().starts_with("GET /next"));
}

#[test]
fn an_early_answer_to_a_long_body_closes() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let answer =
        rig.once("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\nxxxx");
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.contains("connection: close\r\n"),
        "{answer}"
    );
}

#[test]
fn a_body_above_the_limit_is_cut_off() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send("POST /limited HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n");
    assert_eq!(client.answer().status(), 413);
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        client.answer().status(),
        200,
        "the rest was short enough to be read away"
    );
    assert!(!backend.received().contains("\r\n0\r\n\r\n"));
}

#[test]
fn an_absolute_target_is_forwarded_as_origin_form_with_its_host() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send("GET http://real.example/x HTTP/1.1\r\nHost: other\r\n\r\n");
    let text = client.answer().text().to_owned();
    assert!(
        text.starts_with("GET /x HTTP/1.1\r\nhost: real.example\r\n"),
        "{text}"
    );
}

#[test]
fn a_connection_carries_only_so_many_requests() {
    let backend = Backend::echo();
    let rig = Rig::with(
        &backend,
        Setup {
            limits: ServeLimits {
                requests: 3,
                ..ServeLimits::default()
            },
            ..Setup::default()
        },
    );
    let mut client = rig.client();
    for expected in [None, None, Some("close")] {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().header("connection"), expected);
    }
    assert_eq!(client.until_close(), "");
}

#[test]
fn a_bug_in_the_handler_is_500_and_the_worker_lives() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let answer = rig.once("GET /bug HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 500 ")
            && answer.contains("gateway.panic")
            && answer.contains("connection: close"),
        "{answer}"
    );
    assert!(
        !answer.contains("a bug of"),
        "the reason is in the log alone"
    );
    assert_eq!(rig.seen.refused.lock()[0], (500, "panic"));
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
}
