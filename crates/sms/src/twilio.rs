//! Twilio Programmable Messaging: Basic authentication, a form, and a text of our own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portico_base::Secret;
use serde_json::Value;

use crate::endpoint::Endpoint;
use crate::message::{Content, Message, NoticeTemplates, Templates, template};
use crate::provider::{Outgoing, Provider, Stamp, Verdict};
use crate::table::{Class, TWILIO};

/// Texts when the setting has none; `{code}` becomes the code.
const TEXTS: [(&str, &str); 2] = [
    ("zh", "您的验证码是 {code}，5 分钟内有效。请勿告诉他人。"),
    (
        "",
        "Your code is {code}. It is valid for 5 minutes. Do not share it.",
    ),
];

/// An account at Twilio.
#[derive(Debug, Clone)]
pub struct Twilio {
    /// Where to ask.
    pub endpoint: Endpoint,
    /// `AC…`.
    pub account_sid: String,
    /// Key that signs instead of the account, `SK…`.
    pub api_key: Option<String>,
    /// The account's token, or the key's secret.
    pub secret: Secret<String>,
    /// Number of the sender.
    pub from: Option<String>,
    /// Messaging service, which goes before the number.
    pub messaging_service: Option<String>,
    /// Texts with `{code}`.
    pub texts: Templates,
    /// Texts of notices; without one the message's own.
    pub notices: NoticeTemplates,
}

/// The `Authorization` header.
pub(crate) fn basic(user: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")))
}

impl Twilio {
    fn text(&self, message: &Message) -> String {
        let own = template(&self.texts, &self.notices, message);
        match &message.content {
            Content::Code(code) => own
                .unwrap_or_else(|| built_in(&message.locale))
                .replace("{code}", code.expose()),
            Content::Notice(news) => own.unwrap_or(&news.text).to_owned(),
        }
    }
}

fn built_in(locale: &str) -> &'static str {
    let language = locale.split('-').next().unwrap_or_default();
    TEXTS
        .iter()
        .find(|(l, _)| l.is_empty() || *l == language)
        .map_or("{code}", |(_, text)| *text)
}

impl Provider for Twilio {
    fn name(&self) -> &'static str {
        TWILIO.provider
    }

    fn account(&self) -> &str {
        &self.account_sid
    }

    fn serves(&self, _message: &Message) -> bool {
        self.from.is_some() || self.messaging_service.is_some()
    }

    fn sign(&self, message: &Message, _stamp: &Stamp) -> Outgoing {
        let user = self.api_key.as_deref().unwrap_or(&self.account_sid);
        let sender = match (&self.messaging_service, &self.from) {
            (Some(service), _) => ("MessagingServiceSid", service.as_str()),
            (None, from) => ("From", from.as_deref().unwrap_or_default()),
        };
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("To", &message.phone)
            .append_pair(sender.0, sender.1)
            .append_pair("Body", &self.text(message))
            .finish();
        Outgoing {
            url: format!(
                "{}/2010-04-01/Accounts/{}/Messages.json",
                self.endpoint.base(),
                percent_encoding::utf8_percent_encode(
                    &self.account_sid,
                    percent_encoding::NON_ALPHANUMERIC
                )
            ),
            headers: vec![
                (
                    "content-type",
                    "application/x-www-form-urlencoded".to_owned(),
                ),
                ("accept", "application/json".to_owned()),
                ("authorization", basic(user, self.secret.expose())),
            ],
            body: body.into_bytes(),
        }
    }

    fn classify(&self, status: u16, body: &[u8]) -> Verdict {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        if (200..300).contains(&status) {
            return accepted(&answer);
        }
        let code = number(&answer["code"]);
        let message = answer["message"].as_str().unwrap_or_default();
        let class = TWILIO.class(&code).unwrap_or(match status {
            429 => Class::Next,
            _ => TWILIO.class_or(&code, status),
        });
        Verdict::new(class, &code, message)
    }

    fn endpoint(&self) -> &str {
        self.endpoint.base()
    }
}

/// A message that was taken can have failed already.
fn accepted(answer: &Value) -> Verdict {
    let Some(status) = answer["status"].as_str() else {
        return Verdict::new(Class::Ambiguous, "answer_unreadable", "");
    };
    let sid = answer["sid"].as_str();
    if matches!(status, "failed" | "undelivered") {
        let code = number(&answer["error_code"]);
        let said = answer["error_message"].as_str().unwrap_or(status);
        return Verdict::new(TWILIO.class_or(&code, 400), &code, said).with_receipt(sid);
    }
    let mut verdict = Verdict::new(Class::Sent, status, "").with_receipt(sid);
    let segments = number(&answer["num_segments"]).parse().unwrap_or(1_u32);
    verdict.segments = segments.clamp(1, 100);
    verdict
}

/// Twilio writes numbers as numbers here and as texts there.
fn number(value: &Value) -> String {
    match value {
        Value::Number(n) => n.to_string(),
        Value::String(text) => text.clone(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Twilio {
        Twilio {
            endpoint: Endpoint::parse("https://api.twilio.com").unwrap(),
            account_sid: "AC0123".to_owned(),
            api_key: None,
            secret: Secret::from("token"),
            from: Some("+15005550006".to_owned()),
            messaging_service: None,
            texts: Templates::default(),
            notices: NoticeTemplates::default(),
        }
    }

    fn message(locale: &str) -> Message {
        Message {
            id: "1".to_owned(),
            phone: "+12025550123".to_owned(),
            content: Content::Code(Secret::from("048213")),
            locale: locale.to_owned(),
        }
    }

    fn form(request: &Outgoing) -> Vec<(String, String)> {
        form_urlencoded::parse(&request.body).into_owned().collect()
    }

    #[test]
    fn the_request() {
        let stamp = Stamp {
            at: Default::default(),
            nonce: String::new(),
        };
        let request = account().sign(&message("en"), &stamp);
        assert_eq!(
            request.url,
            "https://api.twilio.com/2010-04-01/Accounts/AC0123/Messages.json"
        );
        // RFC 7617 by hand: base64("AC0123:token").
        let basic = ("authorization", "Basic QUMwMTIzOnRva2Vu".to_owned());
        assert!(request.headers.contains(&basic));
        let pairs = form(&request);
        assert_eq!(pairs[0], ("To".to_owned(), "+12025550123".to_owned()));
        assert_eq!(pairs[1].0, "From");
        assert!(pairs[2].1.contains("048213") && pairs[2].1.contains("valid"));

        let mut by_key = account();
        by_key.api_key = Some("SK1".to_owned());
        by_key.messaging_service = Some("MG1".to_owned());
        let request = by_key.sign(&message("zh-CN"), &stamp);
        assert!(
            request
                .headers
                .contains(&("authorization", super::basic("SK1", "token")))
        );
        let pairs = form(&request);
        assert_eq!(
            pairs[1],
            ("MessagingServiceSid".to_owned(), "MG1".to_owned())
        );
        assert!(pairs[2].1.contains("验证码"), "the language of the user");
    }

    #[test]
    fn answers() {
        let class = |status, body: &str| account().classify(status, body.as_bytes()).class;
        let ok = br#"{"sid":"SM1","status":"queued","error_code":null,"num_segments":"2"}"#;
        let ok = account().classify(201, ok);
        assert_eq!(
            (ok.class, ok.receipt.as_deref(), ok.segments),
            (Class::Sent, Some("SM1"), 2)
        );
        let failed = r#"{"sid":"SM1","status":"failed","error_code":30001}"#;
        assert_eq!(class(201, failed), Class::Next);
        let undelivered = r#"{"sid":"SM1","status":"undelivered","error_code":null}"#;
        assert_eq!(class(201, undelivered), Class::StopAlert);
        assert_eq!(class(201, "ok"), Class::Ambiguous);
        assert_eq!(class(429, r#"{"code":99999}"#), Class::Next);
        assert_eq!(
            class(429, r#"{"code":60203}"#),
            Class::Stop,
            "the code goes first"
        );
        assert_eq!(class(403, r#"{"code":60605}"#), Class::Stop);
        assert_eq!(class(401, r#"{"code":20003}"#), Class::NextAlert);
        assert_eq!(class(400, r#"{"code":12345}"#), Class::StopAlert);
        assert_eq!(class(503, ""), Class::Next);
    }
}
