//! The way to the mail server (RFC 5321, TLS by RFC 3207 or RFC 8314).

use std::fmt;
use std::time::Duration;

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use portico_base::Secret;
use portico_contract::settings::Settings;

use super::templates::Mail;
use crate::settings::mail::{FROM, HOST, PASSWORD, PORT, TLS, USER};

/// Longest wait for one answer of the server.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The server and the sender, as the settings say now.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    host: String,
    port: u16,
    tls: String,
    user: String,
    password: Secret<String>,
    from: String,
}

/// Why a mail was not taken.
#[derive(Debug)]
pub(crate) enum MailError {
    /// Sender, address or text cannot be written as a mail; or the server will never take it.
    Never(String),
    /// Trying again may help.
    Later(String),
}

impl MailError {
    /// True when trying again does not help.
    pub(crate) const fn is_final(&self) -> bool {
        matches!(self, Self::Never(_))
    }
}

impl fmt::Display for MailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Never(why) | Self::Later(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for MailError {}

impl Server {
    /// The server of the installation; nothing while mail is off.
    pub(crate) fn of(settings: &Settings) -> Option<Self> {
        let (host, from) = (settings.system(&HOST), settings.system(&FROM));
        if host.is_empty() || from.is_empty() {
            return None;
        }
        Some(Self {
            host,
            from,
            port: settings.system(&PORT),
            tls: settings.system(&TLS),
            user: settings.system(&USER),
            password: Secret::new(settings.system(&PASSWORD)),
        })
    }

    /// Hands a mail to the server. `id` names it, so that one which is sent twice is seen as one.
    pub(crate) async fn send(&self, to: &str, mail: &Mail, id: &str) -> Result<(), MailError> {
        let message = self.message(to, mail, id)?;
        let sent = self.transport()?.send(message).await;
        sent.map(|_| ()).map_err(|error| self.judge(&error))
    }

    fn message(&self, to: &str, mail: &Mail, id: &str) -> Result<Message, MailError> {
        let never =
            |what: &str, error: &dyn fmt::Display| MailError::Never(format!("{what}: {error}"));
        let from: Mailbox = self
            .from
            .parse()
            // A wrong setting can be put right while the mail waits.
            .map_err(|error| MailError::Later(format!("mail.from: {error}")))?;
        let to: Mailbox = to.parse().map_err(|error| never("the address", &error))?;
        let domain = from.email.domain().to_owned();
        Message::builder()
            .from(from)
            .to(to)
            .subject(&mail.subject)
            .message_id(Some(format!("<{id}@{domain}>")))
            .header(AutoSubmitted)
            .multipart(MultiPart::alternative_plain_html(
                mail.text.clone(),
                mail.html.clone(),
            ))
            .map_err(|error| never("the mail", &error))
    }

    fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>, MailError> {
        let later = |error: &dyn fmt::Display| MailError::Later(error.to_string());
        let parameters = || TlsParameters::new(self.host.clone()).map_err(|error| later(&error));
        let tls = match self.tls.as_str() {
            "none" if portico_config::is_loopback_host(&self.host) => Tls::None,
            "none" => {
                let why = "mail.smtp.tls: mails leave this machine encrypted only";
                return Err(MailError::Later(why.to_owned()));
            }
            "tls" => Tls::Wrapper(parameters()?),
            _ => Tls::Required(parameters()?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host)
            .port(self.port)
            .tls(tls)
            .timeout(Some(TIMEOUT));
        if !self.user.is_empty() {
            let password = self.password.expose().clone();
            builder = builder.credentials(Credentials::new(self.user.clone(), password));
        }
        Ok(builder.build())
    }

    /// What an error means. A refused login is a wrong setting, which can be put right while the mail
    /// waits; every other 5xx is about this mail.
    fn judge(&self, error: &lettre::transport::smtp::Error) -> MailError {
        let code = error.status().map(u16::from);
        let text = format!("{}: {}", self.host, portico_web::problem::chain(error));
        match code {
            Some(530 | 534 | 535 | 538) | None => MailError::Later(text),
            Some(code) if code >= 500 => MailError::Never(text),
            Some(_) => MailError::Later(text),
        }
    }
}

/// Nobody is away on holiday for us (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}
