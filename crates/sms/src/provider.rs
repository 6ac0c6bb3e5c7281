//! A provider of messages: the one trait that a new vendor implements (ID-59b).

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use portico_base::{Random, Timestamp};

use crate::message::Message;
use crate::table::Class;
use crate::transport::{Reply, Sender};

/// Longest text of a vendor that is kept.
const MESSAGE_CHARS: usize = 300;
const CODE_CHARS: usize = 100;
const RECEIPT_CHARS: usize = 128;
/// So many digits in a row can be a code or a part of a number.
const DIGITS: usize = 6;

/// What makes a signature unique.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// The moment of the request.
    pub at: Timestamp,
    /// 32 hexadecimal digits, never twice.
    pub nonce: String,
}

impl Stamp {
    /// A stamp of this moment.
    #[must_use]
    pub fn new(at: Timestamp, random: &dyn Random) -> Self {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        Self {
            at,
            nonce: hex::encode(bytes),
        }
    }
}

/// A signed request, ready to leave: always a POST.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Whole address with the query exactly as it was signed.
    pub url: String,
    /// All but `Host`, which follows the address.
    pub headers: Vec<(&'static str, String)>,
    /// The body, byte for byte as it was signed.
    pub body: Vec<u8>,
}

/// Address, headers and body carry codes, numbers and credentials.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What to do next.
    pub class: Class,
    /// The vendor's code, or ours where there was no answer.
    pub code: String,
    /// The vendor's sentence, cut and without numbers.
    pub message: String,
    /// By which the vendor's receipt names this message.
    pub receipt: Option<String>,
    /// Messages that were paid for.
    pub segments: u32,
}

impl Verdict {
    /// A verdict in the vendor's words.
    #[must_use]
    pub fn new(class: Class, code: &str, message: &str) -> Self {
        Self {
            class,
            code: cut(code, CODE_CHARS),
            message: cut(&without_numbers(message), MESSAGE_CHARS),
            receipt: None,
            segments: u32::from(class == Class::Sent),
        }
    }

    /// The same with the id of the receipt.
    #[must_use]
    pub fn with_receipt(mut self, receipt: Option<&str>) -> Self {
        self.receipt = receipt
            .filter(|r| !r.is_empty())
            .map(|r| cut(r, RECEIPT_CHARS));
        self
    }
}

/// A vendor with the credentials of one account.
pub trait Provider: fmt::Debug + Send + Sync {
    /// `aliyun`, `tencent`, `twilio`, …: in settings, records and metrics.
    fn name(&self) -> &'static str;

    /// Who pays. Accounts fail on their own, so that each has a breaker of its own.
    fn account(&self) -> &str;

    /// True when there is a template for this number and language.
    fn serves(&self, message: &Message) -> bool;

    /// The request for a message: a pure function, so that the vendors' vectors test it.
    fn sign(&self, message: &Message, stamp: &Stamp) -> Outgoing;

    /// What an answer means, by the table of this vendor.
    fn classify(&self, status: u16, body: &[u8]) -> Verdict;

    /// Address whose reachability says something about the vendor.
    fn endpoint(&self) -> &str;

    /// Signs, sends and classifies.
    fn send<'a>(
        &'a self,
        sender: &'a Sender,
        message: &'a Message,
        stamp: &'a Stamp,
        limit: Duration,
    ) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            let request = self.sign(message, stamp);
            match sender.post(request, limit).await {
                Reply::Answer { status, body } => self.classify(status, &body),
                Reply::NotSent(code) => Verdict::new(Class::Next, code, "nothing was sent"),
                Reply::NoAnswer(code) => {
                    Verdict::new(Class::Ambiguous, code, "sent, and no whole answer came")
                }
            }
        })
    }
}

fn cut(text: &str, chars: usize) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(chars)
        .collect()
}

/// Vendors quote the number, some even the parameters: every long run of digits becomes stars.
fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut run = String::new();
    for c in text.chars().chain(std::iter::once('\0')) {
        if c.is_ascii_digit() {
            run.push(c);
            continue;
        }
        if run.len() >= DIGITS {
            out.push_str("****");
        } else {
            out.push_str(&run);
        }
        run.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vendors_quote_is_not_kept() {
        let said = "The 'To' number +8613812345678 is bad, code 048213; Permits:5";
        let verdict = Verdict::new(Class::Stop, "21211", said);
        assert_eq!(
            verdict.message,
            "The 'To' number +**** is bad, code ****; Permits:5"
        );
        let long = Verdict::new(Class::Stop, "x", &"é\n".repeat(1_000));
        assert_eq!(long.message.chars().count(), 300);
        assert!(!long.message.contains('\n'));
    }

    #[test]
    fn a_request_does_not_print_its_contents() {
        let request = Outgoing {
            url: "https://x/?code=048213".to_owned(),
            headers: vec![("authorization", "hunter2".to_owned())],
            body: b"048213".to_vec(),
        };
        let text = format!("{request:?}");
        assert!(
            !text.contains("048213") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
