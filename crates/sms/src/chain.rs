//! One code through a chain of providers: who is asked next, and when it ends (ID-52, ID-54, ID-55).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use portico_base::{Clock, Random};
use tokio::time::Instant;

use crate::breaker::Breakers;
use crate::message::Message;
use crate::provider::{Provider, Stamp, Verdict};
use crate::table::Class;
use crate::transport::Sender;

/// An attempt that has less time than this is not begun: it could only become ambiguous.
const LEAST: Duration = Duration::from_millis(100);

/// How long a send may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// All attempts together.
    pub budget: Duration,
    /// One of them.
    pub attempt: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            budget: Duration::from_secs(6),
            attempt: Duration::from_millis(2_500),
        }
    }
}

/// A provider in a chain.
#[derive(Debug, Clone)]
pub struct Link {
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// Beginnings of the numbers it may be used for (`+86`); empty for all.
    pub countries: Vec<String>,
    /// Price of a segment in millionths of the account's currency.
    pub cost_micro: i64,
}

impl Link {
    /// True when the provider can be asked to send this message.
    #[must_use]
    pub fn fits(&self, message: &Message) -> bool {
        let here = self.countries.is_empty()
            || self
                .countries
                .iter()
                .any(|start| message.phone.starts_with(start.as_str()));
        here && self.provider.serves(message)
    }
}

/// Somebody must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// The vendor refuses our configuration, since this answer.
    Misconfigured,
    /// An error of the vendor that no table knows.
    Unknown,
    /// The breaker opened.
    Opened,
}

/// One provider was asked.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Name of the provider.
    pub provider: &'static str,
    /// 1 for the first of a send.
    pub number: u32,
    /// What it answered.
    pub verdict: Verdict,
    /// From signing to the classified answer.
    pub latency: Duration,
    /// Millionths of the account's currency.
    pub cost_micro: i64,
    /// What changed with it.
    pub alert: Option<Alert>,
}

/// How a send ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A vendor took it.
    Sent,
    /// Perhaps delivered.
    Ambiguous,
    /// The number is refused.
    Stopped,
    /// Nobody could take it.
    Unavailable,
}

/// A send under way.
#[derive(Debug)]
pub struct Run {
    rest: VecDeque<Link>,
    limits: Limits,
    begun: Instant,
    attempts: u32,
    ambiguous: bool,
    ended: Option<Ending>,
}

impl Run {
    /// Begins a send; the budget of time runs from now.
    #[must_use]
    pub fn new(links: Vec<Link>, limits: Limits) -> Self {
        Self {
            rest: links.into(),
            limits,
            begun: Instant::now(),
            attempts: 0,
            ambiguous: false,
            ended: None,
        }
    }

    /// Asks the next provider that may be asked; nothing when the send has ended.
    pub async fn step(
        &mut self,
        message: &Message,
        sender: &Sender,
        breakers: &Breakers,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Option<Attempt> {
        if self.ended.is_some() {
            return None;
        }
        while let Some(link) = self.rest.pop_front() {
            let left = self.limits.budget.saturating_sub(self.begun.elapsed());
            if left < LEAST {
                break;
            }
            if !link.fits(message) || !breakers.admit(&*link.provider, clock.now()) {
                continue;
            }
            let begun = Instant::now();
            let stamp = Stamp::new(clock.now(), random);
            let limit = left.min(self.limits.attempt);
            let verdict = link.provider.send(sender, message, &stamp, limit).await;
            let change = breakers.learn(&*link.provider, verdict.class, clock.now());
            self.attempts += 1;
            self.note(verdict.class);
            return Some(Attempt {
                provider: link.provider.name(),
                number: self.attempts,
                latency: begun.elapsed(),
                cost_micro: cost(verdict.class, link.cost_micro, verdict.segments),
                alert: match verdict.class {
                    Class::StopAlert => Some(Alert::Unknown),
                    _ if change.misconfigured => Some(Alert::Misconfigured),
                    _ if change.opened => Some(Alert::Opened),
                    _ => None,
                },
                verdict,
            });
        }
        self.ended = Some(self.exhausted());
        None
    }

    /// How it ended; before the end, how it would.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.ended.unwrap_or_else(|| self.exhausted())
    }

    fn note(&mut self, class: Class) {
        // The attempt after an ambiguous one is the last, whatever comes of it.
        let last = self.ambiguous;
        self.ambiguous |= class == Class::Ambiguous;
        self.ended = match class {
            Class::Sent => Some(Ending::Sent),
            Class::Stop | Class::StopAlert => Some(Ending::Stopped),
            _ if last => Some(Ending::Ambiguous),
            Class::Next | Class::NextAlert | Class::Ambiguous => None,
        };
    }

    const fn exhausted(&self) -> Ending {
        if self.ambiguous {
            Ending::Ambiguous
        } else {
            Ending::Unavailable
        }
    }
}

/// What was perhaps delivered was perhaps paid for.
fn cost(class: Class, segment: i64, segments: u32) -> i64 {
    match class {
        Class::Sent | Class::Ambiguous => segment.saturating_mul(i64::from(segments.max(1))),
        _ => 0,
    }
}
