//! The vectors: the bytes, and what must come of them.

use Must::{Break, Either, Pass, Refuse};

/// What must come of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Must {
    /// 400, 414, 431, 501 or 505, or no answer; nothing is forwarded, the connection ends.
    Refuse,
    /// So many requests are forwarded, in a form that cannot be read in two ways.
    Pass(usize),
    /// One or the other; forwarded at most once.
    Either,
    /// The head may be forwarded; the body must not be finished, and nothing follows.
    Break,
}
/// A request that must never reach the instance as one of its own.
pub(super) const SMUGGLED: &str = "GET /api/target/smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

/// Behind `POST /api/target/v HTTP/1.1` and `Host`: what is sent, and what must come of it.
pub(super) const BEHIND_HOST: &[(&str, Must)] = &[
    // Lengths.
    ("Content-Length: 5\r\n\r\nhello", Pass(1)),
    ("Content-Length: 005\r\n\r\nhello", Either),
    ("conTENT-Length: 5\r\n\r\nhello", Pass(1)),
    ("Content-Length:  5 \r\n\r\nhello", Pass(1)),
    ("Content-Length:\t5\t\r\n\r\nhello", Pass(1)),
    (
        "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        Refuse,
    ),
    (
        "Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
        Refuse,
    ),
    (
        "Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
        Refuse,
    ),
    ("Content-Length: 5,5\r\n\r\nhello", Refuse),
    ("Content-Length: 5, 0\r\n\r\nhello", Refuse),
    ("Content-Length: 5,\r\n\r\nhello", Refuse),
    ("Content-Length: ,5\r\n\r\nhello", Refuse),
    ("Content-Length: 1000000000000000000000\r\n\r\n", Refuse),
    ("Content-Length: 18446744073709551616\r\n\r\n", Refuse),
    ("Content-Length: 18446744073709551621\r\n\r\nhello", Refuse),
    ("Content-Length: 9223372036854775808\r\n\r\n", Refuse),
    ("Content-Length: -5\r\n\r\nhello", Refuse),
    ("Content-Length: -0\r\n\r\n", Refuse),
    ("Content-Length: +5\r\n\r\nhello", Refuse),
    ("Content-Length: 0x5\r\n\r\nhello", Refuse),
    ("Content-Length: 5e0\r\n\r\nhello", Refuse),
    ("Content-Length: 5.0\r\n\r\nhello", Refuse),
    ("Content-Length: 1_0\r\n\r\nhellohello", Refuse),
    ("Content-Length: 4 2\r\n\r\n", Refuse),
    ("Content-Length: 5;x\r\n\r\nhello", Refuse),
    ("Content-Length: \"5\"\r\n\r\nhello", Refuse),
    ("Content-Length: five\r\n\r\nhello", Refuse),
    ("Content-Length:\r\n\r\n", Refuse),
    ("Content-Length: \r\n\r\n", Refuse),
    ("Content-Length: \x0b5\r\n\r\nhello", Refuse),
    ("Content-Length: \x0c5\r\n\r\nhello", Refuse),
    ("Content-Length: \u{0665}\r\n\r\nhello", Refuse),
    ("Content-Length : 5\r\n\r\nhello", Refuse),
    ("Content-Length\t: 5\r\n\r\nhello", Refuse),
    (" Content-Length: 5\r\n\r\nhello", Refuse),
    ("Content\rLength: 5\r\n\r\nhello", Refuse),
    ("Content\nLength: 5\r\n\r\nhello", Refuse),
    ("Content-Length\0: 5\r\n\r\nhello", Refuse),
    ("\0Content-Length: 5\r\n\r\nhello", Refuse),
    ("Content-Length: 5\0\r\n\r\nhello", Refuse),
    ("X: y\rContent-Length: 5\r\n\r\nhello", Refuse),
    // Another field, but not to CGI-like instances: it is taken away.
    ("Content_Length: 5\r\n\r\n", Pass(1)),
    // Both framings, in every order.
    (
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refuse,
    ),
    (
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        Refuse,
    ),
    (
        "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
        Refuse,
    ),
    (
        "Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
        Refuse,
    ),
    (
        "Content-Length: 5\r\nTransfer-Encoding:\r\n\r\nhello",
        Refuse,
    ),
    (
        "Content-Length: 10\r\nTransfer-Encoding:\r\nTransfer-Encoding:\r\n\r\n2\r\nAA\r\n0\r\n\r\n",
        Refuse,
    ),
    // Codings.
    (
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Pass(1),
    ),
    (
        "transfer-ENCODING: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Pass(1),
    ),
    (
        "Transfer-Encoding:   chunked  \r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Pass(1),
    ),
    ("Transfer-Encoding: pigeons\r\n\r\n", Refuse),
    ("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: chunked-not\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: notchunked\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: identity\r\n\r\nhello", Refuse),
    (
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        Refuse,
    ),
    (
        "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        Refuse,
    ),
    ("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", Refuse),
    (
        "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Refuse,
    ),
    ("Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: , ,chunked\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: 'chunked'\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: chunk\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: CHUNKED\0\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: \x0cchunked\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding:\n chunked\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding\r\n : chunked\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding\t:\tchunked\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding\x0b: chunked\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer-Encoding\0: chunked\r\n\r\n0\r\n\r\n", Refuse),
    (" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refuse),
    ("X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refuse),
    ("X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refuse),
    ("X:\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refuse),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refuse,
    ),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        Refuse,
    ),
    (
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refuse,
    ),
    ("Transfer_Encoding: chunked\r\n\r\n", Pass(1)),
    ("Transfer-Encoding: chunked\u{a0}\r\n\r\n0\r\n\r\n", Refuse),
    ("Transfer\u{2010}Encoding: chunked\r\n\r\n0\r\n\r\n", Refuse),
    // Field lines.
    ("X: a\r\n folded\r\n\r\n", Refuse),
    ("X: a\r\n\tfolded\r\n\r\n", Refuse),
    ("X: a\nY: b\r\n\r\n", Refuse),
    ("X: a\rY: b\r\n\r\n", Refuse),
    ("X: a\0b\r\n\r\n", Refuse),
    ("X: a\x07b\r\n\r\n", Refuse),
    ("X: a\x7fb\r\n\r\n", Refuse),
    (": empty\r\n\r\n", Refuse),
    ("No colon here\r\n\r\n", Refuse),
    ("Fo@: Failure\r\n\r\n", Refuse),
    ("Foo\x01\test: Bar\r\n\r\n", Refuse),
    ("X[]: y\r\n\r\n", Refuse),
    ("X(y): z\r\n\r\n", Refuse),
    ("X\"y: z\r\n\r\n", Refuse),
    ("X/y: z\r\n\r\n", Refuse),
    ("name\r\n : value\r\n\r\n", Refuse),
    ("X:\r\n\r\n", Pass(1)),
    ("X:\ty\r\n\r\n", Pass(1)),
    ("X: caf\u{e9}\r\n\r\n", Pass(1)),
    ("\rX: y\r\n\r\n", Refuse),
    (
        "X: y\r\n\rZGET /api/target/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        Refuse,
    ),
    (
        "X: y\n\nGET /api/target/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        Refuse,
    ),
    (
        "X: y\r\n\nGET /api/target/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        Refuse,
    ),
    // Hosts.
    ("Host: 127.0.0.1\r\n\r\n", Refuse),
    ("Host: other\r\n\r\n", Refuse),
    // What only we may say, and what is for one hop.
    (
        "Connection: X-Portico-User\r\nX-Portico-User: admin\r\n\r\n",
        Refuse,
    ),
    (
        "Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
        Refuse,
    ),
    ("Connection: Host\r\n\r\n", Refuse),
    (
        "Connection: close, Authorization\r\nAuthorization: Bearer x\r\n\r\n",
        Refuse,
    ),
    ("Connection: X-Hop\r\nX-Hop: 1\r\n\r\n", Pass(1)),
    (
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        Either,
    ),
];

/// Chunked bodies behind a head without fault.
pub(super) const CHUNKS: &[(&str, Must)] = &[
    ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", Pass(1)),
    ("a\r\n0123456789\r\n0\r\n\r\n", Pass(1)),
    ("A\r\n0123456789\r\n0\r\n\r\n", Pass(1)),
    ("5\r\nhello\r\n000\r\n\r\n", Pass(1)),
    ("0005\r\nhello\r\n0\r\n\r\n", Pass(1)),
    ("5;a=b;c=\"d;e\"\r\nhello\r\n0\r\n\r\n", Pass(1)),
    (
        "5;ilovew3;somuchlove=aretheseparametersfor\r\nhello\r\n0;x\r\n\r\n",
        Pass(1),
    ),
    ("5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n", Pass(1)),
    (
        "5\r\nhello\r\n0\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nAuthorization: x\r\nX-Portico-User: y\r\n\r\n",
        Either,
    ),
    ("5\r\nhello\r\n0\r\nbroken trailer\r\n\r\n", Break),
    ("5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n", Break),
    ("5\r\nhello\r\n0\r\n X: y\r\n\r\n", Break),
    ("2 erfrferferf\r\naa\r\n0 rrrr\r\n\r\n", Break),
    ("5 \r\nhello\r\n0\r\n\r\n", Break),
    (" 5\r\nhello\r\n0\r\n\r\n", Break),
    ("+5\r\nhello\r\n0\r\n\r\n", Break),
    ("-5\r\nhello\r\n0\r\n\r\n", Break),
    ("0x5\r\nhello\r\n0\r\n\r\n", Break),
    ("5_0\r\nhello\r\n0\r\n\r\n", Break),
    ("\r\nhello\r\n0\r\n\r\n", Break),
    (";x\r\nhello\r\n0\r\n\r\n", Break),
    ("g\r\nhello\r\n0\r\n\r\n", Break),
    ("5\nhello\r\n0\r\n\r\n", Break),
    ("5\rhello\r\n0\r\n\r\n", Break),
    ("5\r\nhello\n0\r\n\r\n", Break),
    ("5\r\nhello0\r\n\r\n", Break),
    ("5\r\nhelloXX0\r\n\r\n", Break),
    ("5\r\nhello\r\n0\n\n", Break),
    ("5\r\nhello\r\n0\r\n\n", Break),
    ("5;\nx\r\nhello\r\n0\r\n\r\n", Break),
    ("5;\rx\r\nhello\r\n0\r\n\r\n", Break),
    ("5;a\nhello\r\n0\r\n\r\n", Break),
    ("5;\0\r\nhello\r\n0\r\n\r\n", Break),
    ("FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", Break),
    ("10000000000000005\r\nhello\r\n0\r\n\r\n", Break),
    ("FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", Break),
    (
        "00000000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
        Break,
    ),
    ("5\r\nhello\r\n\r\n0\r\n\r\n", Break),
];

/// Whole requests, up to where their head ends; what follows is `SMUGGLED`.
pub(super) const WHOLE: &[(&str, Must)] = &[
    (
        "GET /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Pass(2),
    ),
    (
        "\r\nGET /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Either,
    ),
    (
        "\nGET /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Either,
    ),
    (
        " GET /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET  /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/v  HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET\t/api/target/v\tHTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/v HTTP/1.1 \r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    ("GET /api/target/v HTTP/1.1\nHost: 127.0.0.1\n\n", Refuse),
    ("GET /api/target/v HTTP/1.1\rHost: 127.0.0.1\r\r", Refuse),
    (
        "GET /api/target/v HTTP/1.1\r\n Host: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    ("GET /api/target/v HTTP/1.1\r\n\r\n", Refuse),
    ("GET /api/target/v HTTP/1.1\r\nHost:\r\n\r\n", Refuse),
    ("GET /api/target/v HTTP/1.1\r\nHost: a b\r\n\r\n", Refuse),
    (
        "GET /api/target/v HTTP/1.1\r\nHost: 127.0.0.1/x\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/v HTTP/1.1\r\nHost: user@127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/v HTTP/1.1\r\nHost: 127.0.0.1, evil\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/v HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    ("GET /api/target/v\r\n\r\n", Refuse),
    ("GET /api/target/v \r\n\r\n", Refuse),
    (
        "GET /api/target/v HTTP/5.6\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/v HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/v HTTP/1.10\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/v HTTP/1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/v http/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/v IHTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/v ICE/1.0\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "PUT /api/target/v RTSP/1.0\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/v HTTP/0.9\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "G\0T /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "G@T /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "Extra lineGET /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/\0v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/\x7fv HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET /api/target/caf\u{e9} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    ("GET * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", Refuse),
    (
        "GET http:///api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "GET http://user@127.0.0.1/api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Refuse,
    ),
    (
        "TRACE /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        Either,
    ),
    (
        "POST /api/target/v HTTP/1.0\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refuse,
    ),
    ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Refuse),
    (
        "GET /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello",
        Pass(2),
    ),
    (
        "DELETE /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello",
        Pass(2),
    ),
    (
        "HEAD /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Pass(2),
    ),
    (
        "OPTIONS /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Pass(2),
    ),
    (
        "GET /api/target/v#fragment HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        Either,
    ),
];

/// A head in any piece waits for the rest; nothing is answered before.
pub(super) const PIECES: &[&str] = &[
    "G",
    "GET ",
    "GET /hello",
    "GET /hello ",
    "GET /hello HTTP",
    "GET /hello HTTP/1.1",
    "GET /hello HTTP/1.1\r",
    "GET /hello HTTP/1.1\r\n",
    "GET /hello HTTP/1.1\r\nHos",
    "GET /hello HTTP/1.1\r\nHost:",
    "GET /hello HTTP/1.1\r\nHost: ",
    "GET /hello HTTP/1.1\r\nHost: localhost",
    "GET /hello HTTP/1.1\r\nHost: localhost\r",
    "GET /hello HTTP/1.1\r\nHost: localhost\r\n",
    "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r",
    "P",
    "PR",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
    "POST /hello HTTP/1.1\r\nHost: localhost\r\nContent-Le",
];
