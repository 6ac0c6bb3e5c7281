//! A provider for development that writes codes into the log, and says each time that it must not be used.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::message::{Content, Message};
use crate::provider::{Outgoing, Provider, Stamp, Verdict};
use crate::table::Class;
use crate::transport::Sender;

/// Writes codes into the log. Whoever makes one has checked that the node is for development.
#[derive(Debug, Clone, Copy, Default)]
pub struct Console;

impl Console {
    /// Its name in settings and records.
    pub const NAME: &'static str = "console";
}

impl Provider for Console {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn account(&self) -> &'static str {
        ""
    }

    fn serves(&self, _message: &Message) -> bool {
        true
    }

    fn sign(&self, _message: &Message, _stamp: &Stamp) -> Outgoing {
        Outgoing {
            url: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    fn classify(&self, _status: u16, _body: &[u8]) -> Verdict {
        Verdict::new(Class::Sent, "OK", "written to the log")
    }

    fn endpoint(&self) -> &'static str {
        ""
    }

    fn send<'a>(
        &'a self,
        _sender: &'a Sender,
        message: &'a Message,
        _stamp: &'a Stamp,
        _limit: Duration,
    ) -> BoxFuture<'a, Verdict> {
        match &message.content {
            // `digits` and not `code`: a field of that name would be masked, and the developer needs it.
            Content::Code(code) => tracing::warn!(
                phone = %message.phone,
                digits = %code.expose(),
                "DEVELOPMENT ONLY (node.dev = true): no message is sent, the code is in this log"
            ),
            Content::Notice(news) => tracing::warn!(
                phone = %message.phone,
                text = %news.text,
                "DEVELOPMENT ONLY (node.dev = true): no message is sent, the notice is in this log"
            ),
        }
        Box::pin(std::future::ready(self.classify(200, b"")))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use portico_base::Secret;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn it_writes_the_code_and_says_what_it_is() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let message = Message {
            id: "1".to_owned(),
            phone: "+8613812345678".to_owned(),
            content: Content::Code(Secret::from("048213")),
            locale: "en".to_owned(),
        };
        let stamp = Stamp {
            at: "2026-01-02T03:04:05Z".parse().unwrap(),
            nonce: "0".repeat(32),
        };
        let limit = Duration::from_secs(1);
        let sender = Sender::new(limit).unwrap();
        let verdict = Console.send(&sender, &message, &stamp, limit).await;
        assert_eq!(verdict.class, Class::Sent);
        let text = String::from_utf8(log.0.lock().clone()).unwrap();
        assert!(
            text.contains("048213") && text.contains("DEVELOPMENT ONLY"),
            "{text}"
        );
        assert!(text.contains("WARN"), "{text}");
    }
}
