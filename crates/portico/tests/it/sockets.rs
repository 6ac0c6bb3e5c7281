//! WebSocket byte for byte: whatever a client sends, it gets the same through the door as without it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::house::House;
use crate::shop::{Ledger, Shop};

const FIN: u8 = 0x80;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A client's frame (RFC 6455 §5.2); `first` holds the flags and the opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0x11, 0x22, 0x33, 0x44];
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    out
}

fn message(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(FIN | opcode, payload)
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    message(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// What is sent, in one go; each ends with what ends the connection.
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn cases() -> Vec<(String, Vec<u8>)> {
    let bye = close(1000, b"");
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20] {
        for opcode in [TEXT, BINARY] {
            let sent = message(opcode, &vec![b'*'; length]);
            all.push((
                format!("a message of {length}, opcode {opcode}"),
                [sent, bye.clone()].concat(),
            ));
        }
    }
    let mut add = |name: &str, parts: &[Vec<u8>]| all.push((name.to_owned(), parts.concat()));
    let (start, middle, end) = (frame(TEXT, b"one"), frame(0, b"two"), frame(FIN, b"three"));
    let ping = message(PING, b"are you there");
    add(
        "fragments",
        &[start.clone(), middle.clone(), end.clone(), bye.clone()],
    );
    add(
        "empty fragments",
        &[
            frame(TEXT, b""),
            frame(0, b""),
            frame(FIN, b""),
            bye.clone(),
        ],
    );
    add(
        "a ping between fragments",
        &[
            start.clone(),
            ping.clone(),
            middle.clone(),
            end.clone(),
            bye.clone(),
        ],
    );
    add(
        "pings and an unasked pong",
        &[
            ping.clone(),
            message(PONG, b"x"),
            message(PING, b""),
            message(PING, &[0xfe; 125]),
            bye.clone(),
        ],
    );
    add(
        "a ping that is too long",
        &[message(PING, &[b'x'; 126]), bye.clone()],
    );
    add(
        "a ping in fragments",
        &[frame(PING, b"x"), frame(FIN, b"y"), bye.clone()],
    );
    add("a fragment of nothing", &[end.clone(), bye.clone()]);
    add(
        "a message inside a message",
        &[start.clone(), message(TEXT, b"x"), bye.clone()],
    );
    add(
        "letters in two fragments",
        &[frame(TEXT, b"caf\xc3"), frame(FIN, b"\xa9"), bye.clone()],
    );
    add(
        "text that is none",
        &[message(TEXT, b"caf\xc3\x28"), bye.clone()],
    );
    add(
        "text that is none, in fragments",
        &[
            frame(TEXT, b"\xce\xba"),
            frame(FIN, b"\xed\xa0\x80"),
            bye.clone(),
        ],
    );
    for bit in [0x40, 0x20, 0x10] {
        add(
            &format!("reserved bit {bit:#x}"),
            &[frame(FIN | bit | TEXT, b"x"), bye.clone()],
        );
    }
    for opcode in [3, 5, 7, 11, 13, 15] {
        add(
            &format!("reserved opcode {opcode}"),
            &[message(opcode, b"x"), bye.clone()],
        );
    }
    add(
        "a frame without a mask",
        &[vec![FIN | TEXT, 1, b'x'], bye.clone()],
    );
    add(
        "a length that is not the shortest",
        &[
            vec![FIN | TEXT, 0x80 | 126, 0, 1, 0, 0, 0, 0, b'x'],
            bye.clone(),
        ],
    );
    add(
        "a length beyond all",
        &[vec![
            FIN | BINARY,
            0x80 | 127,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0,
            0,
            0,
            0,
        ]],
    );
    for code in [
        1000, 1001, 1003, 1007, 1011, 3000, 4999, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000,
        65_535,
    ] {
        add(&format!("close with {code}"), &[close(code, b"bye")]);
    }
    add("an empty close", &[message(CLOSE, b"")]);
    add("a close of one byte", &[message(CLOSE, b"\x03")]);
    add(
        "a close with text that is none",
        &[close(1000, b"\xce\xba\xed\xa0\x80")],
    );
    add("a long close", &[message(CLOSE, &[3; 126])]);
    add(
        "a message behind the close",
        &[bye.clone(), message(TEXT, b"too late"), ping],
    );
    add("two closes", &[bye.clone(), bye]);
    all
}

/// Everything that comes back behind the switch; `step` bytes are written at a time.
fn converse(address: &str, path: &str, sent: &[u8], step: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let head = crate::raw::read_head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    let mut writer = stream.try_clone().unwrap();
    let sent = sent.to_vec();
    // Beside the reading, because both sides of a large echo have to flow.
    let writing = std::thread::spawn(move || {
        for piece in sent.chunks(step) {
            if writer.write_all(piece).is_err() {
                return;
            }
        }
    });
    let mut got = Vec::new();
    let mut piece = [0; 64 * 1024];
    // A reset after an error loses nothing that was read before.
    while let Ok(n) = stream.read(&mut piece) {
        if n == 0 {
            break;
        }
        got.extend_from_slice(&piece[..n]);
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
    writing.join().unwrap();
    got
}

/// A server that resets behind an error may lose what it said before: then one is the beginning of the other.
fn is_same(direct: &[u8], through: &[u8]) -> bool {
    direct == through
        || (!direct.is_empty()
            && !through.is_empty()
            && (direct.starts_with(through) || through.starts_with(direct)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_is_the_same_through_the_door() {
    let house = House::start(&[]);
    let shop = Shop::open(&Ledger::default()).await;
    house.register("shop", shop.port, json!({})).await;
    let direct_address = format!("127.0.0.1:{}", shop.port);
    let mut faults = Vec::new();
    let all = cases();
    let count = all.len();
    for (name, sent) in all {
        let steps: &[usize] = if sent.len() < 300 {
            &[usize::MAX, 1]
        } else {
            &[usize::MAX, 1448]
        };
        for step in steps {
            let (direct, address, bytes, step) = (
                direct_address.clone(),
                house.address().to_owned(),
                sent.clone(),
                *step,
            );
            let (direct, through) = tokio::task::spawn_blocking(move || {
                (
                    converse(&direct, "/talk", &bytes, step),
                    converse(&address, "/api/shop/talk", &bytes, step),
                )
            })
            .await
            .unwrap();
            if !is_same(&direct, &through) {
                let end = |bytes: &[u8]| {
                    format!(
                        "{} bytes, the last {:?}",
                        bytes.len(),
                        &bytes[bytes.len().saturating_sub(20)..]
                    )
                };
                faults.push(format!(
                    "{name}, {step} at a time: direct {}, through {}",
                    end(&direct),
                    end(&through)
                ));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} of {count}:\n{}",
        faults.len(),
        faults.join("\n")
    );
}
