//! Tencent Cloud SMS `SendSms` with TC3-HMAC-SHA256, as the vendor's documentation has it.

use portico_base::{Secret, Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::endpoint::Endpoint;
use crate::hash::{hmac_sha256, sha256_hex};
use crate::message::{Content, Message, NoticeTemplates, Region, Signs, Templates, template};
use crate::provider::{Outgoing, Provider, Stamp, Verdict};
use crate::table::{Class, TENCENT};

const ALGORITHM: &str = "TC3-HMAC-SHA256";
const ACTION: &str = "SendSms";
const VERSION: &str = "2021-01-11";
/// Signed and sent byte for byte.
const CONTENT_TYPE: &str = "application/json; charset=utf-8";

/// An account at Tencent Cloud.
#[derive(Debug, Clone)]
pub struct Tencent {
    /// Where to ask.
    pub endpoint: Endpoint,
    /// SecretId.
    pub secret_id: String,
    /// SecretKey.
    pub secret_key: Secret<String>,
    /// Id of the SMS application.
    pub sdk_app_id: String,
    /// `ap-guangzhou`, …
    pub region: String,
    /// Approved signatures; numbers outside the mainland need none.
    pub signs: Signs,
    /// Ids of approved templates with the code as their one variable.
    pub templates: Templates,
    /// Ids of approved templates without variables, for notices.
    pub notices: NoticeTemplates,
}

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub service: &'a str,
    pub host: &'a str,
    /// Seconds since the epoch; the date comes from it.
    pub timestamp: i64,
    /// Signed as well when given.
    pub action: Option<&'a str>,
    pub body: &'a [u8],
}

/// A signature and what it was made from.
#[derive(Debug)]
pub(crate) struct Signed {
    pub body_hash: String,
    pub canonical_hash: String,
    pub signature: String,
    pub authorization: String,
}

/// Signs a call under a key that is derived for one day and one service.
pub(crate) fn sign(id: &str, secret: &str, call: &Call<'_>) -> Signed {
    let date = Timestamp::from_timestamp(call.timestamp, 0)
        .unwrap_or_default()
        .format("%Y-%m-%d")
        .to_string();
    let body_hash = sha256_hex(call.body);
    let mut names = "content-type;host".to_owned();
    let mut lines = format!("content-type:{CONTENT_TYPE}\nhost:{}\n", call.host);
    if let Some(action) = call.action {
        names.push_str(";x-tc-action");
        lines.push_str(&format!("x-tc-action:{}\n", action.to_lowercase()));
    }
    let canonical = format!("POST\n/\n\n{lines}\n{names}\n{body_hash}");
    let canonical_hash = sha256_hex(canonical.as_bytes());
    let scope = format!("{date}/{}/tc3_request", call.service);
    let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{canonical_hash}", call.timestamp);
    let day = hmac_sha256(format!("TC3{secret}").as_bytes(), date.as_bytes());
    let service = hmac_sha256(day.as_ref(), call.service.as_bytes());
    let key = hmac_sha256(service.as_ref(), b"tc3_request");
    let signature = hex::encode(hmac_sha256(key.as_ref(), to_sign.as_bytes()));
    Signed {
        authorization: format!(
            "{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
        ),
        body_hash,
        canonical_hash,
        signature,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    phone_number_set: [&'a str; 1],
    sms_sdk_app_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sign_name: Option<&'a str>,
    template_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    template_param_set: Option<[&'a str; 1]>,
    #[serde(skip_serializing_if = "str::is_empty")]
    session_context: &'a str,
}

/// The body of a call, in the order in which the vendor documents its members.
pub(crate) fn body(
    phone: &str,
    app: &str,
    sign: Option<&str>,
    template: &str,
    code: Option<&str>,
    context: &str,
) -> Vec<u8> {
    serde_json::to_vec(&Body {
        phone_number_set: [phone],
        sms_sdk_app_id: app,
        sign_name: sign,
        template_id: template,
        template_param_set: code.map(|code| [code]),
        session_context: context,
    })
    .expect("texts are JSON")
}

impl Provider for Tencent {
    fn name(&self) -> &'static str {
        TENCENT.provider
    }

    fn account(&self) -> &str {
        &self.secret_id
    }

    fn serves(&self, message: &Message) -> bool {
        template(&self.templates, &self.notices, message).is_some()
            && (message.region() == Region::Intl || self.signs.pick(message).is_some())
    }

    fn sign(&self, message: &Message, stamp: &Stamp) -> Outgoing {
        let code = match &message.content {
            Content::Code(code) => Some(code.expose().as_str()),
            Content::Notice(_) => None,
        };
        let body = body(
            &message.phone,
            &self.sdk_app_id,
            self.signs.pick(message),
            template(&self.templates, &self.notices, message).unwrap_or_default(),
            code,
            &message.id,
        );
        let timestamp = stamp.at.timestamp();
        let signed = sign(
            &self.secret_id,
            self.secret_key.expose(),
            &Call {
                service: "sms",
                host: self.endpoint.authority(),
                timestamp,
                action: Some(ACTION),
                body: &body,
            },
        );
        Outgoing {
            url: format!("{}/", self.endpoint.base()),
            headers: vec![
                ("content-type", CONTENT_TYPE.to_owned()),
                ("x-tc-action", ACTION.to_owned()),
                ("x-tc-version", VERSION.to_owned()),
                ("x-tc-timestamp", timestamp.to_string()),
                ("x-tc-region", self.region.clone()),
                ("authorization", signed.authorization),
            ],
            body,
        }
    }

    /// Errors come inside a 200: for the call, and for each number.
    fn classify(&self, status: u16, body: &[u8]) -> Verdict {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let response = &answer["Response"];
        let (part, serial) = if response["Error"].is_object() {
            (&response["Error"], None)
        } else {
            let number = &response["SendStatusSet"][0];
            (number, number["SerialNo"].as_str())
        };
        let code = part["Code"].as_str().unwrap_or_default();
        let message = part["Message"].as_str().unwrap_or_default();
        if status == 200 && code.eq_ignore_ascii_case("ok") {
            let mut verdict = Verdict::new(Class::Sent, code, message).with_receipt(serial);
            let fee = part["Fee"].as_u64().and_then(|fee| u32::try_from(fee).ok());
            verdict.segments = fee.unwrap_or(1).clamp(1, 100);
            return verdict;
        }
        if status == 200 && code.is_empty() {
            return Verdict::new(Class::Ambiguous, "answer_unreadable", "");
        }
        Verdict::new(TENCENT.class_or(code, status), code, message)
    }

    fn endpoint(&self) -> &str {
        self.endpoint.base()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classify(status: u16, body: &str) -> Verdict {
        Tencent {
            endpoint: Endpoint::parse("https://sms.tencentcloudapi.com").unwrap(),
            secret_id: String::new(),
            secret_key: Secret::default(),
            sdk_app_id: String::new(),
            region: String::new(),
            signs: Signs::default(),
            templates: Templates::default(),
            notices: NoticeTemplates::default(),
        }
        .classify(status, body.as_bytes())
    }

    #[test]
    fn errors_inside_a_200() {
        let number = |code: &str| {
            format!(
                r#"{{"Response":{{"SendStatusSet":[{{"SerialNo":"5000:1","Fee":1,"Code":"{code}","Message":"m"}}]}}}}"#
            )
        };
        let call =
            |code: &str| format!(r#"{{"Response":{{"Error":{{"Code":"{code}","Message":"m"}}}}}}"#);
        let ok = classify(200, &number("oK"));
        assert_eq!(
            (ok.class, ok.receipt.as_deref()),
            (Class::Sent, Some("5000:1"))
        );
        let class = |body: String| classify(200, &body).class;
        assert_eq!(
            class(number("LimitExceeded.PhoneNumberDailyLimit")),
            Class::Stop
        );
        assert_eq!(class(call("AuthFailure.SignatureExpire")), Class::NextAlert);
        assert_eq!(class(call("InternalError.Timeout")), Class::Ambiguous);
        assert_eq!(class(call("InternalError.DBError")), Class::Next);
        assert_eq!(class(call("FailedOperation.New")), Class::StopAlert);
        assert_eq!(class("{}".to_owned()), Class::Ambiguous);
        assert_eq!(classify(500, "").class, Class::Next);
    }
}
