//! Checks a request as Tencent Cloud does: TC3-HMAC-SHA256 over what arrived, then the arguments.

use aws_lc_rs::{digest, hmac};
use serde_json::{Value, json};

use super::account::{TENCENT_APP, TENCENT_ID, TENCENT_NOTICE, TENCENT_SECRET};
use super::{Order, Refused, Request, is_e164, refuse};

const SKEW_S: i64 = 300;
const FAILURE: &str = "AuthFailure.SignatureFailure";

pub(super) fn check(request: &Request, now_s: i64) -> Result<Order, Refused> {
    signature(request, now_s)?;
    if request.header("x-tc-action") != Some("SendSms")
        || request.header("x-tc-version") != Some("2021-01-11")
    {
        return Err(refuse(
            "InvalidAction",
            "only SendSms of 2021-01-11 stands here",
        ));
    }
    if request.header("x-tc-region").is_none_or(str::is_empty) {
        return Err(refuse("UnsupportedOperation.UnsuportedRegion", "no region"));
    }
    let body: Value =
        serde_json::from_slice(&request.body).map_err(|_| refuse("InvalidParameter", "no JSON"))?;
    if body["SmsSdkAppId"] != TENCENT_APP {
        return Err(refuse(
            "UnauthorizedOperation.SmsSdkAppIdVerifyFail",
            "another application",
        ));
    }
    let phones = body["PhoneNumberSet"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let phone = match phones {
        [Value::String(phone)] if is_e164(phone) => phone.clone(),
        _ => {
            return Err(refuse(
                "InvalidParameterValue.IncorrectPhoneNumber",
                "one number",
            ));
        }
    };
    if phone.starts_with("+86") && body["SignName"].as_str().is_none_or(str::is_empty) {
        return Err(refuse(
            "FailedOperation.SignatureIncorrectOrUnapproved",
            "mainland numbers need a signature",
        ));
    }
    if body["TemplateId"].as_str().is_none_or(str::is_empty) {
        return Err(refuse(
            "FailedOperation.TemplateIncorrectOrUnapproved",
            "no template",
        ));
    }
    let parameters = body["TemplateParamSet"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let template = body["TemplateId"].as_str().unwrap_or_default();
    if template.starts_with(TENCENT_NOTICE) {
        return match parameters {
            [] => Ok(Order {
                phone,
                code: String::new(),
                notice: Some(template.to_owned()),
                nonce: None,
            }),
            _ => Err(refuse(
                "FailedOperation.TemplateParamSetNotMatchApprovedTemplate",
                "the template has no variables",
            )),
        };
    }
    match parameters {
        [Value::String(code)]
            if (1..=6).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_digit()) =>
        {
            Ok(Order {
                phone,
                code: code.clone(),
                notice: None,
                nonce: None,
            })
        }
        _ => Err(refuse(
            "InvalidParameterValue.TemplateParameterFormatError",
            "at most six digits",
        )),
    }
}

fn signature(request: &Request, now_s: i64) -> Result<(), Refused> {
    let wrong = |why: &str| refuse(FAILURE, why);
    if request.method != "POST" || request.path != "/" || !request.query.is_empty() {
        return Err(wrong("POST / it is"));
    }
    let timestamp: i64 = request
        .header("x-tc-timestamp")
        .and_then(|t| t.parse().ok())
        .ok_or_else(|| wrong("no timestamp"))?;
    if (timestamp - now_s).abs() > SKEW_S {
        return Err(refuse("AuthFailure.SignatureExpire", "too old or too new"));
    }
    let given = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("TC3-HMAC-SHA256 "))
        .ok_or_else(|| wrong("no authorization"))?;
    let mut credential = "";
    let mut names = "";
    let mut tag = "";
    for part in given.split(", ") {
        match part.split_once('=') {
            Some(("Credential", value)) => credential = value,
            Some(("SignedHeaders", value)) => names = value,
            Some(("Signature", value)) => tag = value,
            _ => return Err(wrong("not name=value")),
        }
    }
    let date = portico_base::Timestamp::from_timestamp(timestamp, 0)
        .ok_or_else(|| wrong("no moment"))?
        .date_naive()
        .to_string();
    let scope = format!("{date}/sms/tc3_request");
    match credential.split_once('/') {
        Some((id, _)) if id != TENCENT_ID => {
            return Err(refuse("AuthFailure.SecretIdNotFound", "another key"));
        }
        Some((_, of)) if of == scope => {}
        _ => return Err(wrong("the scope is another")),
    }
    let signed: Vec<&str> = names.split(';').collect();
    if !signed.is_sorted() || !signed.contains(&"content-type") || !signed.contains(&"host") {
        return Err(wrong("content-type and host are signed"));
    }
    let mut canonical = "POST\n/\n\n".to_owned();
    for name in &signed {
        let value = request.header(name).ok_or_else(|| wrong("not sent"))?;
        let value = if *name == "x-tc-action" {
            value.to_lowercase()
        } else {
            value.to_owned()
        };
        canonical.push_str(&format!("{name}:{value}\n"));
    }
    let hash = |bytes: &[u8]| hex::encode(digest::digest(&digest::SHA256, bytes));
    canonical.push_str(&format!("\n{names}\n{}", hash(&request.body)));
    let text = format!(
        "TC3-HMAC-SHA256\n{timestamp}\n{scope}\n{}",
        hash(canonical.as_bytes())
    );
    let mut key = format!("TC3{TENCENT_SECRET}").into_bytes();
    for part in [date.as_str(), "sms", "tc3_request"] {
        let of = hmac::Key::new(hmac::HMAC_SHA256, &key);
        key = hmac::sign(&of, part.as_bytes()).as_ref().to_vec();
    }
    let tag = hex::decode(tag).map_err(|_| wrong("no hexadecimal"))?;
    hmac::verify(
        &hmac::Key::new(hmac::HMAC_SHA256, &key),
        text.as_bytes(),
        &tag,
    )
    .map_err(|_| wrong("the signature is another"))
}

/// Codes that are about the one number and not about the call.
fn is_of_the_number(code: &str) -> bool {
    code == "Ok" || code.contains("PhoneNumber") || code.contains("DeliveryFrequency")
}

pub(super) fn answer(code: &str) -> (u16, Value) {
    let id = "a0aabda6-cf91-4f3e-a81f-9198114a2279";
    let message = format!("the stand-in says {code}");
    let response = if is_of_the_number(code) {
        json!({"SendStatusSet": [{"SerialNo": "5000:1045710669157053657849499619", "PhoneNumber": "", "Fee": 1,
            "SessionContext": "", "Code": code, "Message": message, "IsoCode": "CN"}], "RequestId": id})
    } else {
        json!({"Error": {"Code": code, "Message": message}, "RequestId": id})
    };
    (200, json!({"Response": response}))
}
