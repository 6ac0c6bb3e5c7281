//! gRPC health checks (grpc.health.v1): a unary call by hand over HTTP/2, with the few bytes of protobuf
//! that it needs.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::Finding;
use super::net::{Net, Target, Tls};

/// Bytes of an answer that are looked at; a real one has seven.
const MOST: usize = 4_096;
/// `ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// Asks for the health of a service (empty: of the whole server).
pub(super) async fn look(net: &Net, target: &Target, service: &str) -> Finding {
    match ask(net, target, service).await {
        Ok(SERVING) => Finding::passing(format!("gRPC check {target}: success")),
        Ok(other) => Finding::critical(format!("gRPC check {target}: {}", status_name(other))),
        Err(error) => Finding::critical(format!("gRPC check {target}: {error}")),
    }
}

fn status_name(status: u64) -> &'static str {
    match status {
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

async fn ask(net: &Net, target: &Target, service: &str) -> Result<u64, String> {
    let scheme = if target.tls == Tls::No {
        "http"
    } else {
        "https"
    };
    let request = Request::post(format!("{scheme}://{target}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "grpc-portico/1")
        .body(Full::new(encode(service)))
        .map_err(|e| e.to_string())?;
    let stream = target.open(net, b"h2").await?;
    // hyper drives HTTP/2 streams from its executor; all of them end with the connection, and that with
    // this function.
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        if !response.status().is_success() {
            return Err(format!("HTTP status {}", response.status()));
        }
        let (head, mut body) = response.into_parts();
        let mut message = BytesMut::new();
        let mut status = grpc_status(&head.headers);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| e.to_string())?;
            match frame.into_data() {
                Ok(data) if message.len() + data.len() <= MOST => message.extend_from_slice(&data),
                Ok(_) => return Err("the answer is too long".to_owned()),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        status = grpc_status(&trailers).or(status);
                    }
                }
            }
        }
        match status.as_deref() {
            Some("0") => decode(&message).ok_or_else(|| "the answer is no health".to_owned()),
            Some(code) => Err(format!("gRPC status {code}")),
            None => Err("the answer has no gRPC status".to_owned()),
        }
    };
    tokio::pin!(connection);
    tokio::select! {
        biased;
        done = exchange => done,
        ended = &mut connection => Err(ended.err().map_or_else(|| "closed".to_owned(), |e| e.to_string())),
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<String> {
    headers
        .get("grpc-status")
        .and_then(|v| v.to_str().ok())
        .map(str::to_owned)
}

/// A length-prefixed `HealthCheckRequest { service = 1 }`.
fn encode(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut out = BytesMut::with_capacity(5 + message.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap_or(0));
    out.put(message);
    out.freeze()
}

/// `HealthCheckResponse.status` (field 1, varint) of a length-prefixed message; 0 when it is left out.
fn decode(framed: &[u8]) -> Option<u64> {
    let [0, a, b, c, d, rest @ ..] = framed else {
        return None;
    };
    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    let mut message = rest.get(..length)?;
    let mut status = 0;
    while !message.is_empty() {
        let (tag, after) = varint(message)?;
        message = after;
        match tag & 7 {
            0 => {
                let (value, after) = varint(message)?;
                message = after;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let (length, after) = varint(message)?;
                message = after.get(usize::try_from(length).ok()?..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(i).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_bytes() {
        assert_eq!(&encode("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&encode("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(decode(&[0, 0, 0, 0, 2, 0x08, 1]), Some(SERVING));
        assert_eq!(decode(&[0, 0, 0, 0, 2, 0x08, 2]), Some(2));
        assert_eq!(decode(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(
            decode(&[0, 0, 0, 0, 5, 0x12, 1, b'x', 0x08, 1]),
            Some(SERVING),
            "unknown fields"
        );
        for bad in [
            &[][..],
            &[1, 0, 0, 0, 0],
            &[0, 0, 0, 0, 9, 8],
            &[0, 0, 0, 0, 1, 0x08],
        ] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
            let mut framed = vec![0, 0, 0, 0, u8::try_from(bytes.len()).unwrap()];
            framed.extend(&bytes);
            let _ = decode(&framed);
        }

        #[test]
        fn varints_return(value: u64) {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            prop_assert_eq!(varint(&out), Some((value, &[][..])));
        }
    }
}
