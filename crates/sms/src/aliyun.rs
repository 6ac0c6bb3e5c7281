//! Aliyun Dysms `SendSms` with signature V3 (ACS3-HMAC-SHA256), as the vendor's documentation has it.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use portico_base::Secret;
use serde_json::Value;

use crate::endpoint::Endpoint;
use crate::hash::{hmac_sha256, sha256_hex};
use crate::message::{Content, Message, NoticeTemplates, Signs, Templates, template};
use crate::provider::{Outgoing, Provider, Stamp, Verdict};
use crate::table::{ALIYUN, Class};

const ALGORITHM: &str = "ACS3-HMAC-SHA256";
const ACTION: &str = "SendSms";
const VERSION: &str = "2017-05-25";

/// Everything but RFC 3986's unreserved characters is encoded; a space is `%20`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// An account at Aliyun.
#[derive(Debug, Clone)]
pub struct Aliyun {
    /// Where to ask.
    pub endpoint: Endpoint,
    /// AccessKey id.
    pub access_key_id: String,
    /// AccessKey secret.
    pub access_key_secret: Secret<String>,
    /// Of temporary credentials.
    pub security_token: Option<Secret<String>>,
    /// Approved signatures.
    pub signs: Signs,
    /// Codes of approved templates with the one variable `code`.
    pub templates: Templates,
    /// Codes of approved templates without variables, for notices.
    pub notices: NoticeTemplates,
}

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub host: &'a str,
    pub action: &'a str,
    pub version: &'a str,
    /// `yyyy-MM-ddTHH:mm:ssZ`.
    pub date: &'a str,
    pub nonce: &'a str,
    pub security_token: Option<&'a str>,
    pub query: &'a [(&'a str, &'a str)],
}

/// A signature and what it was made from.
#[derive(Debug)]
pub(crate) struct Signed {
    pub canonical_hash: String,
    pub signature: String,
    pub authorization: String,
    /// Encoded and sorted.
    pub query: String,
    /// Signed headers but `host`.
    pub headers: Vec<(&'static str, String)>,
}

/// Signs a call with an empty body: the secret is used directly, there is no derived key.
pub(crate) fn sign(id: &str, secret: &str, call: &Call<'_>) -> Signed {
    let body_hash = sha256_hex(b"");
    let query = canonical_query(call.query);
    let mut headers: BTreeMap<&'static str, &str> = BTreeMap::from([
        ("host", call.host),
        ("x-acs-action", call.action),
        ("x-acs-content-sha256", &*body_hash),
        ("x-acs-date", call.date),
        ("x-acs-signature-nonce", call.nonce),
        ("x-acs-version", call.version),
    ]);
    if let Some(token) = call.security_token {
        headers.insert("x-acs-security-token", token);
    }
    let names: Vec<&str> = headers.keys().copied().collect();
    let names = names.join(";");
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    let canonical = format!("POST\n/\n{query}\n{lines}\n{names}\n{body_hash}");
    let canonical_hash = sha256_hex(canonical.as_bytes());
    let to_sign = format!("{ALGORITHM}\n{canonical_hash}");
    let signature = hex::encode(hmac_sha256(secret.as_bytes(), to_sign.as_bytes()));
    Signed {
        authorization: format!(
            "{ALGORITHM} Credential={id},SignedHeaders={names},Signature={signature}"
        ),
        headers: headers
            .into_iter()
            .filter(|(name, _)| *name != "host")
            .map(|(name, value)| (name, value.to_owned()))
            .collect(),
        canonical_hash,
        signature,
        query,
    }
}

fn canonical_query(pairs: &[(&str, &str)]) -> String {
    let mut pairs: Vec<(String, String)> = pairs
        .iter()
        .map(|(key, value)| (encode(key), encode(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join("&")
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

impl Provider for Aliyun {
    fn name(&self) -> &'static str {
        ALIYUN.provider
    }

    fn account(&self) -> &str {
        &self.access_key_id
    }

    fn serves(&self, message: &Message) -> bool {
        template(&self.templates, &self.notices, message).is_some()
            && self.signs.pick(message).is_some()
    }

    fn sign(&self, message: &Message, stamp: &Stamp) -> Outgoing {
        let date = stamp.at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let template = template(&self.templates, &self.notices, message).unwrap_or_default();
        // A JSON text whose values are texts: a number is refused with `isv.INVALID_JSON_PARAM`.
        let parameters = match &message.content {
            Content::Code(code) => Some(format!(r#"{{"code":"{}"}}"#, code.expose())),
            Content::Notice(_) => None,
        };
        let mut query = vec![
            ("PhoneNumbers", message.phone.as_str()),
            ("SignName", self.signs.pick(message).unwrap_or_default()),
            ("TemplateCode", template),
            ("OutId", message.id.as_str()),
        ];
        query.extend(parameters.as_deref().map(|text| ("TemplateParam", text)));
        let signed = sign(
            &self.access_key_id,
            self.access_key_secret.expose(),
            &Call {
                host: self.endpoint.authority(),
                action: ACTION,
                version: VERSION,
                date: &date,
                nonce: &stamp.nonce,
                security_token: self.security_token.as_ref().map(|t| t.expose().as_str()),
                query: &query,
            },
        );
        let mut headers = signed.headers;
        headers.push(("authorization", signed.authorization));
        headers.push(("accept", "application/json".to_owned()));
        Outgoing {
            url: format!("{}/?{}", self.endpoint.base(), signed.query),
            headers,
            body: Vec::new(),
        }
    }

    fn classify(&self, status: u16, body: &[u8]) -> Verdict {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let code = answer["Code"].as_str().unwrap_or_default();
        let message = answer["Message"].as_str().unwrap_or_default();
        if status == 200 && code == "OK" {
            return Verdict::new(Class::Sent, code, message).with_receipt(answer["BizId"].as_str());
        }
        if status == 200 && code.is_empty() {
            // Taken perhaps, but not in the vendor's words.
            return Verdict::new(Class::Ambiguous, "answer_unreadable", "");
        }
        Verdict::new(ALIYUN.class_or(code, status), code, message)
    }

    fn endpoint(&self) -> &str {
        self.endpoint.base()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Aliyun {
        Aliyun {
            endpoint: Endpoint::parse("https://dysmsapi.aliyuncs.com").unwrap(),
            access_key_id: "YourAccessKeyId".to_owned(),
            access_key_secret: Secret::from("YourAccessKeySecret"),
            security_token: None,
            signs: serde_json::from_str(r#"{"cn": "阿里云"}"#).unwrap(),
            templates: serde_json::from_str(r#"{"cn": {"zh-CN": "SMS_153050000"}}"#).unwrap(),
            notices: NoticeTemplates::default(),
        }
    }

    #[test]
    fn a_space_is_percent_twenty_and_tilde_stays() {
        assert_eq!(
            canonical_query(&[("b", "x y+~*"), ("a", "é")]),
            "a=%C3%A9&b=x%20y%2B~%2A"
        );
    }

    #[test]
    fn temporary_credentials_are_signed() {
        let message = Message {
            id: "send-1".to_owned(),
            phone: "+8613812345678".to_owned(),
            content: Content::Code(Secret::from("048213")),
            locale: "zh-CN".to_owned(),
        };
        let stamp = Stamp {
            at: "2026-01-02T03:04:05Z".parse().unwrap(),
            nonce: "0".repeat(32),
        };
        let of = |request: &Outgoing, name: &str| {
            let found = request.headers.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let plain = account().sign(&message, &stamp);
        assert!(plain.url.contains("OutId=send-1"), "receipts name the send");
        let mut temporary = account();
        temporary.security_token = Some(Secret::from("sts"));
        let signed = temporary.sign(&message, &stamp);
        assert_eq!(of(&signed, "x-acs-security-token"), "sts");
        assert!(of(&signed, "authorization").contains(";x-acs-security-token;"));
        assert_ne!(of(&signed, "authorization"), of(&plain, "authorization"));
    }

    #[test]
    fn answers() {
        let class = |status, body: &str| account().classify(status, body.as_bytes()).class;
        let ok = account().classify(200, br#"{"Code":"OK","Message":"OK","BizId":"9006^0"}"#);
        assert_eq!(
            (ok.class, ok.receipt.as_deref()),
            (Class::Sent, Some("9006^0"))
        );
        let low = r#"{"Code":"isv.AMOUNT_NOT_ENOUGH","Message":"x"}"#;
        assert_eq!(class(200, low), Class::Next);
        assert_eq!(
            class(400, r#"{"Code":"SignatureDoesNotMatch"}"#),
            Class::NextAlert
        );
        assert_eq!(
            class(200, r#"{"Code":"isv.SOMETHING_NEW"}"#),
            Class::StopAlert
        );
        assert_eq!(class(200, "<html>"), Class::Ambiguous);
        assert_eq!(class(502, "<html>"), Class::Next);
        assert_eq!(class(404, r#"{"Code":"OK"}"#), Class::StopAlert);
    }
}
