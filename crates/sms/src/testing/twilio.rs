//! Checks a request as Twilio does: Basic authentication and the form.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::account::{TWILIO_SID, TWILIO_TOKEN};
use super::{Order, Refused, Request, is_e164, refuse};

pub(super) fn check(request: &Request) -> Result<Order, Refused> {
    if request.method != "POST"
        || request.path != format!("/2010-04-01/Accounts/{TWILIO_SID}/Messages.json")
    {
        return Err(refuse("20404", "there is nothing at this path"));
    }
    let given = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|value| STANDARD.decode(value).ok())
        .unwrap_or_default();
    if given != format!("{TWILIO_SID}:{TWILIO_TOKEN}").into_bytes() {
        return Err(refuse("20003", "another account"));
    }
    let form: BTreeMap<String, String> =
        form_urlencoded::parse(&request.body).into_owned().collect();
    let of = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if !is_e164(of("To")) {
        return Err(refuse("21211", "no number"));
    }
    if of("From").is_empty() == of("MessagingServiceSid").is_empty() {
        return Err(refuse("21606", "one sender it is"));
    }
    let code: String = of("Body")
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    if of("Body").is_empty() {
        return Err(refuse("21602", "a text is needed"));
    }
    let notice = code.is_empty().then(|| of("Body").to_owned());
    Ok(Order {
        phone: of("To").to_owned(),
        code,
        notice,
        nonce: None,
    })
}

pub(super) fn answer(code: &str) -> (u16, Value) {
    let sid = "SM00000000000000000000000000000001";
    let number = code.parse::<u32>().ok();
    match (code, number) {
        ("queued", _) => {
            let body =
                json!({"sid": sid, "status": "queued", "error_code": null, "num_segments": "1"});
            (201, body)
        }
        // Found out after the message was taken.
        ("30001" | "30450", _) => {
            let body = json!({"sid": sid, "status": "failed", "error_code": number});
            (201, body)
        }
        _ => {
            let status = match code {
                "20003" => 401,
                "60605" => 403,
                "20404" => 404,
                "20429" | "60203" => 429,
                _ => 400,
            };
            let message = format!("the stand-in says {code}");
            let info = format!("https://www.twilio.com/docs/errors/{code}");
            (
                status,
                json!({"code": number, "message": message, "more_info": info, "status": status}),
            )
        }
    }
}
