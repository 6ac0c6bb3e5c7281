//! HTTP checks: one request on a connection of its own, no redirects, a bounded body.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::Finding;
use super::net::{Net, Target, Tls};
use crate::domain::check::{Expect, Probe, Status, cut_output};

/// Bytes of a body that a check looks at.
const BODY: usize = 64 * 1024;

/// Sends the request of an HTTP check and judges the answer.
pub(super) async fn look(net: &Net, target: &Target, path: &str, probe: &Probe) -> Finding {
    let Probe::Http {
        method,
        headers,
        body,
        expect,
        tls_skip_verify,
        ..
    } = probe
    else {
        return Finding::critical("this is no HTTP check");
    };
    let mut target = target.clone();
    if *tls_skip_verify && target.tls == Tls::Verified {
        target.tls = Tls::Unverified;
    }
    let scheme = if target.tls == Tls::No {
        "http"
    } else {
        "https"
    };
    let shown = format!("{method} {scheme}://{target}{path}");
    let request = Request::builder()
        .method(method.as_str())
        .uri(path)
        .header(header::HOST, target.to_string())
        .header(header::USER_AGENT, "Portico Health Check")
        .header(header::CONNECTION, "close");
    let mut request = match request.body(Full::new(Bytes::from(body.clone()))) {
        Ok(request) => request,
        Err(error) => return Finding::critical(error.to_string()),
    };
    for (name, values) in headers {
        for value in values {
            if let (Ok(name), Ok(value)) = (
                http::HeaderName::try_from(name.as_str()),
                HeaderValue::try_from(value.as_str()),
            ) {
                if name == header::HOST {
                    request.headers_mut().insert(name, value);
                } else {
                    request.headers_mut().append(name, value);
                }
            }
        }
    }
    match send(net, &target, request, BODY).await {
        Ok((status, body)) => judge(&format!("HTTP {shown}"), status, &body, expect),
        Err(error) => Finding::critical(format!(
            "{} \"{scheme}://{target}{path}\": {error}",
            capitalised(method)
        )),
    }
}

/// Go's way to name a method in an error, which Consul's clients know.
fn capitalised(method: &str) -> String {
    let mut out = method.to_ascii_lowercase();
    if let Some(first) = out.get_mut(0..1) {
        first.make_ascii_uppercase();
    }
    out
}

/// Sends one request and reads at most `most` bytes of the answer's body.
///
/// # Errors
/// A sentence.
pub(crate) async fn send(
    net: &Net,
    target: &Target,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<(http::StatusCode, Bytes), String> {
    let stream = target.open(net, b"http/1.1").await?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        let status = response.status();
        let body = read(response.into_body(), most).await?;
        Ok((status, body))
    };
    // The connection is driven here, beside the exchange: no task outlives the check.
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        done = &mut exchange => done,
        ended = &mut connection => {
            // It may end right after it delivered the answer.
            match tokio::time::timeout(Duration::from_millis(100), exchange).await {
                Ok(done) => done,
                Err(_) => Err(ended.err().map_or_else(|| "closed".to_owned(), |e| e.to_string())),
            }
        }
    }
}

async fn read(mut body: Incoming, most: usize) -> Result<Bytes, String> {
    let mut out = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|e| e.to_string())?.into_data() {
            let room = most - out.len();
            if data.len() > room {
                out.extend_from_slice(&data[..room]);
                break;
            }
            out.extend_from_slice(&data);
        }
    }
    Ok(out.freeze())
}

fn judge(shown: &str, status: http::StatusCode, body: &Bytes, expect: &Expect) -> Finding {
    let text = String::from_utf8_lossy(body);
    let output = cut_output(&format!("{shown}: {status} Output: {text}")).to_owned();
    let code = status.as_u16();
    let good = if expect.status.is_empty() {
        status.is_success()
    } else {
        expect.status.contains(&code)
    };
    if expect.warn.contains(&code) {
        return Finding {
            status: Status::Warning,
            output,
        };
    }
    if !good {
        return Finding::critical(output);
    }
    // The form was checked when it was registered; a pattern that does not compile matches nothing.
    let matches = expect.body.as_ref().is_none_or(|pattern| {
        regex::RegexBuilder::new(pattern)
            .size_limit(1 << 18)
            .build()
            .is_ok_and(|r| r.is_match(&text))
    });
    if matches {
        Finding::passing(output)
    } else {
        Finding::critical(format!("the body does not match; {output}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_status_and_body() {
        let expect = |status: &[u16], warn: &[u16], body: Option<&str>| Expect {
            status: status.to_vec(),
            warn: warn.to_vec(),
            body: body.map(str::to_owned),
        };
        let of = |code: u16, expect: &Expect| {
            let status = http::StatusCode::from_u16(code).unwrap();
            judge(
                "HTTP GET http://x/",
                status,
                &Bytes::from_static(b"all ok"),
                expect,
            )
            .status
        };
        assert_eq!(of(204, &expect(&[], &[], None)), Status::Passing);
        assert_eq!(of(302, &expect(&[], &[], None)), Status::Critical);
        assert_eq!(of(429, &expect(&[], &[429], None)), Status::Warning);
        assert_eq!(of(404, &expect(&[404], &[], None)), Status::Passing);
        assert_eq!(of(200, &expect(&[], &[], Some("ok$"))), Status::Passing);
        assert_eq!(of(200, &expect(&[], &[], Some("^ok"))), Status::Critical);
        assert_eq!(capitalised("GET"), "Get");
    }
}
