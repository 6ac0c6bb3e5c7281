//! Checks a request as Aliyun does: ACS3-HMAC-SHA256 over what arrived, then the arguments.

use std::collections::BTreeMap;

use aws_lc_rs::{digest, hmac};
use serde_json::{Value, json};

use super::account::{ALIYUN_ID, ALIYUN_NOTICE, ALIYUN_SECRET};
use super::{Order, Refused, Request, is_e164, refuse};

const SKEW_S: i64 = 900;
const MISMATCH: &str = "SignatureDoesNotMatch";

pub(super) fn check(request: &Request, now_s: i64) -> Result<Order, Refused> {
    let nonce = signature(request, now_s)?;
    let given: BTreeMap<String, String> = form_urlencoded::parse(request.query.as_bytes())
        .into_owned()
        .collect();
    let of = |name: &str| given.get(name).map(String::as_str).unwrap_or_default();
    if request.header("x-acs-action") != Some("SendSms") {
        return Err(refuse("InvalidAction.NotFound", "only SendSms stands here"));
    }
    if request.header("x-acs-version") != Some("2017-05-25") {
        return Err(refuse("InvalidVersion", "the version is 2017-05-25"));
    }
    let phone = of("PhoneNumbers");
    let phone = if phone.starts_with('+') {
        phone.to_owned()
    } else {
        format!("+86{phone}")
    };
    if !is_e164(&phone) {
        return Err(refuse("isv.MOBILE_NUMBER_ILLEGAL", "no number"));
    }
    if of("SignName").is_empty() {
        return Err(refuse("isv.SMS_SIGNATURE_ILLEGAL", "no signature"));
    }
    if !of("TemplateCode").starts_with("SMS_") {
        return Err(refuse("isv.SMS_TEMPLATE_ILLEGAL", "no template"));
    }
    if of("TemplateCode").starts_with(ALIYUN_NOTICE) {
        return notice(phone, &given, nonce);
    }
    let parameters: BTreeMap<String, String> = serde_json::from_str(of("TemplateParam"))
        .map_err(|_| refuse("isv.INVALID_JSON_PARAM", "values are texts"))?;
    let code = parameters
        .get("code")
        .ok_or_else(|| refuse("isv.TEMPLATE_MISSING_PARAMETERS", "`code` is missing"))?;
    if !code.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(refuse("isv.INVALID_JSON_PARAM", "letters and digits only"));
    }
    Ok(Order {
        phone,
        code: code.clone(),
        notice: None,
        nonce: Some(nonce),
    })
}

/// A template without variables takes none.
fn notice(
    phone: String,
    given: &BTreeMap<String, String>,
    nonce: String,
) -> Result<Order, Refused> {
    if given.contains_key("TemplateParam") {
        let why = "the template has no variables";
        return Err(refuse("isv.TEMPLATE_PARAMS_ILLEGAL", why));
    }
    Ok(Order {
        phone,
        code: String::new(),
        notice: given.get("TemplateCode").cloned(),
        nonce: Some(nonce),
    })
}

/// The nonce of a request that is signed as it should be.
fn signature(request: &Request, now_s: i64) -> Result<String, Refused> {
    let wrong = |why: &str| refuse(MISMATCH, why);
    if request.method != "POST" || request.path != "/" {
        return Err(wrong("POST / it is"));
    }
    let given = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("ACS3-HMAC-SHA256 "))
        .ok_or_else(|| wrong("no authorization"))?;
    let mut parts = BTreeMap::new();
    for part in given.split(',') {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| wrong("not name=value"))?;
        parts.insert(name, value);
    }
    let part = |name: &str| {
        parts
            .get(name)
            .copied()
            .ok_or_else(|| wrong("a part is missing"))
    };
    if part("Credential")? != ALIYUN_ID {
        return Err(refuse("InvalidAccessKeyId.NotFound", "another key"));
    }
    let signed: Vec<&str> = part("SignedHeaders")?.split(';').collect();
    let must = |name: &str| name == "host" || name == "content-type" || name.starts_with("x-acs-");
    if request
        .headers
        .iter()
        .any(|(name, _)| must(name) && !signed.contains(&name.as_str()))
    {
        return Err(wrong("a header that was sent is not signed"));
    }
    if !signed.is_sorted() {
        return Err(wrong("the signed headers are not sorted"));
    }
    let body_hash = hex::encode(digest::digest(&digest::SHA256, &request.body));
    if request.header("x-acs-content-sha256") != Some(&*body_hash) {
        return Err(wrong("the hash of the body is another"));
    }
    let mut canonical = format!("{}\n/\n{}\n", request.method, sorted(&request.query));
    for name in &signed {
        let value = request.header(name).ok_or_else(|| wrong("not sent"))?;
        canonical.push_str(&format!("{name}:{value}\n"));
    }
    canonical.push_str(&format!("\n{}\n{body_hash}", signed.join(";")));
    let hashed = hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, ALIYUN_SECRET.as_bytes());
    let tag = hex::decode(part("Signature")?).map_err(|_| wrong("no hexadecimal"))?;
    hmac::verify(&key, format!("ACS3-HMAC-SHA256\n{hashed}").as_bytes(), &tag)
        .map_err(|_| wrong("the signature is another"))?;
    let date = request.header("x-acs-date").unwrap_or_default();
    let date: portico_base::Timestamp = date.parse().map_err(|_| wrong("no date"))?;
    if (date.timestamp() - now_s).abs() > SKEW_S {
        return Err(refuse("InvalidTimeStamp.Expired", "too old or too new"));
    }
    let nonce = request.header("x-acs-signature-nonce").unwrap_or_default();
    if nonce.len() < 16 {
        return Err(wrong("no nonce"));
    }
    Ok(nonce.to_owned())
}

/// Pairs decoded, encoded by RFC 3986, and in the order of their names: the vendor's own client writes a space
/// as `+` on the wire and signs it as `%20`.
fn sorted(query: &str) -> String {
    let mut pairs: Vec<String> = form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| format!("{}={}", encoded(&name), encoded(&value)))
        .collect();
    pairs.sort_unstable();
    pairs.join("&")
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

pub(super) fn answer(code: &str) -> (u16, Value) {
    if code == "OK" {
        let body = json!({"Code": "OK", "Message": "OK", "BizId": "900619746936498440^0", "RequestId": "F655A8D5-B967-440B-8683-DAD6FF8DE990"});
        return (200, body);
    }
    let refused_at_the_door = ["Signature", "InvalidAccessKey", "Invalid", "Throttling"];
    let status = if refused_at_the_door.iter().any(|p| code.starts_with(p)) {
        400
    } else {
        200
    };
    let body = json!({"Code": code, "Message": format!("the stand-in says {code}"), "RequestId": "F655A8D5-B967-440B-8683-DAD6FF8DE990"});
    (status, body)
}
