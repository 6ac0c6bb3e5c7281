//! From a miss to a stored answer: waiting for one's turn, asking the origin, collecting what it sends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{AGE, CONTENT_LENGTH, DATE, HeaderMap};

use super::answer::{Answer, CACHE_TAG};
use super::conditional::{self, CONDITIONAL_FIELDS};
use super::facts::Facts;
use super::flight::{self, Baton, Join, Release};
use super::key::{self, KeyBuf, RequestView, VaryRule, secondary};
use super::object::{Draft, Stored, Use, bodiless};
use super::policy::{Credentials, Exchange, Refusal, Terms, judge};
use super::purge::{self, Subject};
use super::rule::{Mode, RulePolicy};
use super::stats::Outcome;
use super::{Cache, FETCH_MS, Lookup};

/// Looks after waiting before a request goes by itself: variants and purges can make each answer unfit.
const ROUNDS: usize = 4;
/// Room that a collector takes at once, however long the body says it is.
const RESERVE: usize = 64 * 1024;

/// What a look-up learnt, for those who come after it.
pub(super) struct Start {
    pub key: KeyBuf,
    pub primary_len: usize,
    /// Of the primary key and the caller's class.
    pub hash: u64,
    pub caller: Credentials,
    pub facts: Facts,
    pub vary: Option<Arc<VaryRule>>,
    /// A stored answer that may be validated, or serve when the origin fails.
    pub base: Option<Arc<Stored>>,
}

/// A miss: the right to lead the fetch or to wait for who does.
pub struct Ticket {
    cache: Cache,
    start: Start,
    part: Part,
}

enum Part {
    /// Nobody waits for this one, and it waits for nobody.
    Alone,
    /// As above, because the answers of this key were not storable a moment ago.
    Pass,
    Flight(Join),
}

/// What a ticket came to.
pub enum Turn {
    Lead(Leader),
    Ready(Answer),
    /// More wait for this answer than we keep, and it cannot be shared.
    Busy,
    TimedOut,
}

/// The duty to fetch: the only one for its key, unless its answers cannot be shared.
pub struct Leader {
    cache: Cache,
    start: Start,
    baton: Option<Baton>,
    release: Option<Release>,
    pass: bool,
    /// The caller's own conditions travel with the request.
    conditional: bool,
    /// Nobody waits for this fetch; it does not count as a request.
    background: bool,
    asked_ms: u64,
}

/// What to do with an answer's head.
pub enum Fill {
    /// Stream on and give every frame to the collector.
    Collect(Collector),
    /// Write this instead of what the origin sent.
    Answer(Answer),
    /// Stream on; it is not stored.
    Through(Refusal),
}

/// Takes a body's frames on their way to the client and stores the answer when it has all of them.
pub struct Collector {
    cache: Cache,
    draft: Option<Box<Draft>>,
    baton: Option<Baton>,
    hash: u64,
    body: BytesMut,
    expected: Option<u64>,
    limit: u64,
}

impl Ticket {
    pub(super) fn new(cache: &Cache, rule: &RulePolicy, start: Start, pass: bool) -> Self {
        // What needs the origin's consent each time cannot be shared by those who wait.
        let base = start.base.as_ref();
        let validated = base.is_some_and(|b| b.terms.always_validate || b.terms.fresh_ms == 0);
        let known = rule.mode == Mode::On || base.is_some();
        let guess = start.caller.class() < 2 && !start.facts.conditional;
        let part = if pass {
            Part::Pass
        } else if validated || !(known || guess) {
            Part::Alone
        } else {
            let key = flight_key(&start);
            Part::Flight(cache.0.flights.join(&key, key::hash(&key)))
        };
        Self {
            cache: cache.clone(),
            start,
            part,
        }
    }

    /// Waits for the turn, at most `wait`: at once for the first, until the answer is there for the others. The
    /// shared tier is asked by the one who leads. Dropping the future gives the place up.
    pub async fn turn(
        self,
        view: &RequestView<'_>,
        rule: &RulePolicy,
        wait: Duration,
        clock: &(dyn Fn() -> u64 + Sync),
    ) -> Turn {
        match tokio::time::timeout(wait, self.rounds(view, rule, clock)).await {
            Ok(turn) => turn,
            Err(_) => Turn::TimedOut,
        }
    }

    async fn rounds(
        self,
        view: &RequestView<'_>,
        rule: &RulePolicy,
        clock: &(dyn Fn() -> u64 + Sync),
    ) -> Turn {
        let Self {
            cache,
            mut start,
            mut part,
        } = self;
        for _ in 0..ROUNDS {
            let leader = |start, baton| Leader::new(&cache, rule, start, baton);
            let turn = match part {
                Part::Alone => return leader(start, None).ask_shared(view, rule, clock).await,
                Part::Pass => {
                    return Turn::Lead(Leader {
                        pass: true,
                        ..leader(start, None)
                    });
                }
                Part::Flight(Join::Lead(baton)) => {
                    return leader(start, Some(baton))
                        .ask_shared(view, rule, clock)
                        .await;
                }
                Part::Flight(Join::Full) => return Turn::Busy,
                Part::Flight(Join::Wait(seat)) => seat.wait().await,
            };
            match turn {
                flight::Turn::Lead(baton) => {
                    return leader(start, Some(baton))
                        .ask_shared(view, rule, clock)
                        .await;
                }
                flight::Turn::Alone(release) => {
                    return Turn::Lead(Leader {
                        release: Some(release),
                        ..leader(start, None)
                    });
                }
                flight::Turn::Busy => return Turn::Busy,
                flight::Turn::Ready(object) => {
                    if let Some(answer) = shared_answer(&cache, &start, object, view, rule, clock())
                    {
                        return Turn::Ready(answer);
                    }
                }
                flight::Turn::Again => {}
            }
            match cache.lookup(view, rule, clock()) {
                Lookup::Hit(answer) | Lookup::Stale(answer, _) => return Turn::Ready(answer),
                Lookup::Miss(ticket) => (start, part) = (ticket.start, ticket.part),
                Lookup::Bypass(_) => break,
                Lookup::OnlyIfCached => return Turn::Busy,
            }
        }
        Turn::Lead(Leader::new(&cache, rule, start, None))
    }
}

impl Leader {
    fn new(cache: &Cache, rule: &RulePolicy, start: Start, baton: Option<Baton>) -> Self {
        // On a route that may turn out uncacheable the caller's condition is worth more than a copy.
        let conditional = start.facts.conditional && start.base.is_none() && rule.mode != Mode::On;
        Self {
            cache: cache.clone(),
            start,
            baton,
            release: None,
            pass: false,
            conditional,
            background: false,
            asked_ms: 0,
        }
    }

    /// The one who refreshes a stale answer, if nobody does yet.
    pub(super) fn refresh(cache: &Cache, start: Start) -> Option<Self> {
        let key = flight_key(&start);
        let baton = cache.0.flights.try_lead(&key, key::hash(&key))?;
        Some(Self {
            cache: cache.clone(),
            start,
            baton: Some(baton),
            release: None,
            pass: false,
            conditional: false,
            background: true,
            asked_ms: 0,
        })
    }

    /// Makes an upstream request of the caller's: without the caller's conditions and range, which the cache
    /// answers itself, but with the stored validators. Notes when the request leaves.
    pub fn prepare(&mut self, headers: &mut HeaderMap, now_ms: u64) {
        self.asked_ms = now_ms;
        if self.pass || self.conditional {
            return;
        }
        for name in &CONDITIONAL_FIELDS {
            headers.remove(name);
        }
        if let Some(base) = &self.start.base {
            for (name, value) in conditional::validators(&base.headers) {
                headers.insert(name, value);
            }
        }
    }

    /// Decides over an answer's head.
    pub fn fill(
        mut self,
        view: &RequestView<'_>,
        rule: &RulePolicy,
        status: StatusCode,
        headers: &HeaderMap,
        now_ms: u64,
    ) -> Fill {
        // The head is here: those whom this fetch holds back may go.
        self.release = None;
        let inner = Arc::clone(&self.cache.0);
        if status == StatusCode::NOT_MODIFIED
            && !self.conditional
            && let Some(base) = self.start.base.clone()
        {
            return Fill::Answer(self.revalidated(&base, view, rule, headers, now_ms));
        }
        if matches!(status.as_u16(), 500 | 502 | 503 | 504)
            && let Some(stale) = self.stale(view, now_ms)
        {
            return Fill::Answer(stale);
        }
        self.count(if self.pass {
            Outcome::Pass
        } else {
            Outcome::Miss
        });
        match self.draft(view, rule, status, headers, now_ms) {
            Ok(draft) => Fill::Collect(self.collect(draft, rule, headers)),
            Err(refusal) => {
                inner.stats.refused.fetch_add(1, Ordering::Relaxed);
                self.refuse(refusal, status, now_ms);
                Fill::Through(refusal)
            }
        }
    }

    /// The origin gave no answer, or too late. A stale one, if there is one that may be used; those who wait get
    /// it too, or the next of them tries.
    pub fn on_error(mut self, view: &RequestView<'_>, now_ms: u64) -> Option<Answer> {
        if let Some(stale) = self.stale(view, now_ms) {
            return Some(stale);
        }
        self.count(Outcome::Miss);
        if let Some(baton) = self.baton.take() {
            baton.failed();
        }
        None
    }

    /// The leader asks the shared tier before the origin; all who wait share what it finds.
    async fn ask_shared(
        mut self,
        view: &RequestView<'_>,
        rule: &RulePolicy,
        clock: &(dyn Fn() -> u64 + Sync),
    ) -> Turn {
        let inner = Arc::clone(&self.cache.0);
        let Some(shared) = &inner.shared else {
            return Turn::Lead(self);
        };
        let primary = &self.start.key[..self.start.primary_len];
        let Some(object) = shared.find(primary, view, clock()).await else {
            return Turn::Lead(self);
        };
        let now_ms = clock();
        if self
            .start
            .caller
            .may_use(rule.scope, &object.terms)
            .is_err()
        {
            return Turn::Lead(self);
        }
        let object = Arc::new(object);
        match object.usable(&inner.ledger, now_ms) {
            Use::Fresh(_) if super::Asked::of(self.start.facts, view, rule).no_cache => {}
            Use::Fresh(_) => {
                self.cache.remember(&object, now_ms);
                inner.stats.count(Outcome::HitL2);
                if let Some(baton) = self.baton.take() {
                    baton.stored(Arc::clone(&object));
                }
                return Turn::Ready(Answer::new(
                    object,
                    view,
                    self.start.facts,
                    Outcome::HitL2,
                    now_ms,
                ));
            }
            Use::Stale { .. } => {
                let newer = self
                    .start
                    .base
                    .as_ref()
                    .is_none_or(|b| b.fetched_ms < object.fetched_ms);
                if newer && !self.conditional {
                    self.start.key = object.key.clone();
                    self.start.base = Some(object);
                }
            }
            Use::Gone => {}
        }
        Turn::Lead(self)
    }

    /// A 304 to our own condition: the stored answer is good again, with the news over it.
    fn revalidated(
        &mut self,
        base: &Arc<Stored>,
        view: &RequestView<'_>,
        rule: &RulePolicy,
        headers: &HeaderMap,
        now_ms: u64,
    ) -> Answer {
        self.count(Outcome::Revalidated);
        if !conditional::identifies(&base.headers, headers) {
            // The origin's 304 is about something else (RFC 9111 §4.3.4): use what it allows once, update nothing.
            self.end_useless();
            return Answer::new(
                Arc::clone(base),
                view,
                self.start.facts,
                Outcome::Revalidated,
                now_ms,
            );
        }
        let mut merged = conditional::freshen(&base.headers, headers, rule.store_set_cookie);
        if !headers.contains_key(DATE) {
            // Without a date of its own the news is as old as its arrival (RFC 9110 §6.6.1).
            merged.remove(DATE);
        }
        let tags = purge::tags(headers.get_all(CACHE_TAG).iter().map(|v| v.as_bytes()));
        let tags = tags
            .filter(|tags| !tags.is_empty())
            .unwrap_or_else(|| base.subject.tags.clone());
        let exchange = self.exchange(now_ms);
        let mut judged = merged.clone();
        if let Some(age) = headers.get(AGE) {
            judged.insert(AGE, age.clone());
        }
        let verdict = judge(self.start.caller, exchange, base.status, &judged, rule);
        let terms = verdict
            .as_ref()
            .map_or(base.terms, |(terms, _)| self.bounded(*terms));
        let draft = Draft {
            key: base.key.clone(),
            primary_len: base.primary().len(),
            status: base.status,
            headers: merged,
            terms,
            vary: base.vary.clone(),
            subject: subject(view, tags),
            fetched_ms: exchange.asked_ms,
            answered_ms: now_ms,
        };
        let object = Arc::new(draft.seal(base.body.clone()));
        if verdict.is_ok() {
            self.cache.keep(&object);
            self.end_stored(&object, now_ms);
        } else {
            self.cache.drop_object(&object.key);
            self.end_useless();
        }
        Answer::new(object, view, self.start.facts, Outcome::Revalidated, now_ms)
    }

    /// The stored answer after an error, if its terms allow it.
    fn stale(&mut self, view: &RequestView<'_>, now_ms: u64) -> Option<Answer> {
        let base = self
            .start
            .base
            .clone()
            .filter(|base| !base.status.is_server_error())?;
        match base.usable(&self.cache.0.ledger, now_ms) {
            Use::Fresh(_) | Use::Stale { if_error: true, .. } => {}
            Use::Stale { .. } | Use::Gone => return None,
        }
        self.count(Outcome::StaleError);
        if let Some(baton) = self.baton.take() {
            baton.stored(Arc::clone(&base));
        }
        Some(Answer::new(
            base,
            view,
            self.start.facts,
            Outcome::StaleError,
            now_ms,
        ))
    }

    fn draft(
        &self,
        view: &RequestView<'_>,
        rule: &RulePolicy,
        status: StatusCode,
        headers: &HeaderMap,
        now_ms: u64,
    ) -> Result<Draft, Refusal> {
        let exchange = self.exchange(now_ms);
        let (terms, directives) = judge(self.start.caller, exchange, status, headers, rule)?;
        let mut vary = VaryRule::of(headers)?;
        if let Some(known) = &self.start.vary {
            vary = vary.union(known)?;
        }
        let tags = purge::tags(headers.get_all(CACHE_TAG).iter().map(|v| v.as_bytes()))
            .ok_or(Refusal::Tags)?;
        if length(headers)?
            .is_some_and(|length| length > rule.max_object_bytes && !bodiless(status))
        {
            return Err(Refusal::TooLarge);
        }
        let primary = &self.start.key[..self.start.primary_len];
        let key = if vary.is_empty() {
            primary.into()
        } else {
            secondary(primary, &vary, view)
        };
        Ok(Draft {
            key,
            primary_len: self.start.primary_len,
            status,
            headers: conditional::storable_fields(
                headers,
                &directives.withheld,
                rule.store_set_cookie,
            ),
            terms: self.bounded(terms),
            vary,
            subject: subject(view, tags),
            fetched_ms: exchange.asked_ms,
            answered_ms: now_ms,
        })
    }

    fn collect(&mut self, draft: Draft, rule: &RulePolicy, headers: &HeaderMap) -> Collector {
        if self.pass {
            self.cache.0.pass.clear(self.start.hash);
        }
        let expected = if bodiless(draft.status) {
            Some(0)
        } else {
            length(headers).ok().flatten()
        };
        Collector {
            cache: self.cache.clone(),
            draft: Some(Box::new(draft)),
            baton: self.baton.take(),
            hash: self.start.hash,
            body: BytesMut::new(),
            expected,
            limit: rule.max_object_bytes,
        }
    }

    fn refuse(&mut self, refusal: Refusal, status: StatusCode, now_ms: u64) {
        if refusal.repeats() {
            self.cache.0.pass.mark(self.start.hash, now_ms);
        }
        // The origin has spoken and said something else: what we had is not its answer any more.
        let replaced = !status.is_server_error() && refusal != Refusal::NotModified;
        if replaced && let Some(base) = &self.start.base {
            self.cache.drop_object(&base.key);
        }
        if refusal == Refusal::ServerError
            && let Some(baton) = self.baton.take()
        {
            baton.failed();
        } else {
            self.end_useless();
        }
    }

    fn end_useless(&mut self) {
        if let Some(baton) = self.baton.take() {
            baton.useless();
        }
    }

    fn end_stored(&mut self, object: &Arc<Stored>, now_ms: u64) {
        if let Some(baton) = self.baton.take() {
            land(&self.cache, baton, object, now_ms);
        }
    }

    fn count(&self, outcome: Outcome) {
        if !self.background {
            self.cache.0.stats.count(outcome);
        }
    }

    fn exchange(&self, now_ms: u64) -> Exchange {
        let asked_ms = if self.asked_ms == 0 {
            now_ms
        } else {
            self.asked_ms.min(now_ms)
        };
        Exchange {
            asked_ms,
            answered_ms: now_ms,
        }
    }

    fn bounded(&self, terms: Terms) -> Terms {
        let most = self.cache.stale_ms();
        Terms {
            stale_if_error_ms: terms.stale_if_error_ms.min(most),
            stale_while_revalidate_ms: terms.stale_while_revalidate_ms.min(most),
            ..terms
        }
    }
}

impl Collector {
    /// Takes a copy of a frame. A body that grows beyond its limits is given up; the client still gets it.
    pub fn push(&mut self, frame: &Bytes) {
        if self.draft.is_none() || frame.is_empty() {
            return;
        }
        let grown = self.body.len() as u64 + frame.len() as u64;
        let collecting = self
            .cache
            .0
            .collecting
            .fetch_add(frame.len(), Ordering::AcqRel)
            + frame.len();
        if grown > self.limit || collecting > self.cache.0.config.collecting_bytes {
            self.cache
                .0
                .collecting
                .fetch_sub(frame.len(), Ordering::AcqRel);
            self.give_up();
            return;
        }
        if self.body.is_empty() {
            let hint = usize::try_from(self.expected.unwrap_or(0)).unwrap_or(RESERVE);
            self.body
                .reserve(hint.clamp(frame.len(), RESERVE.max(frame.len())));
        }
        self.body.extend_from_slice(frame);
    }

    /// The body has ended cleanly. Stores the answer when its length is what was announced.
    pub fn finish(mut self, now_ms: u64) -> Option<Arc<Stored>> {
        let draft = self.draft.take()?;
        let length = self.body.len() as u64;
        if self.expected.is_some_and(|expected| expected != length) {
            if let Some(baton) = self.baton.take() {
                baton.failed();
            }
            return None;
        }
        if now_ms.saturating_sub(draft.fetched_ms) > FETCH_MS {
            // An unsafe request may have overtaken it without leaving a mark.
            if let Some(baton) = self.baton.take() {
                baton.useless();
            }
            return None;
        }
        let object = Arc::new(draft.seal(Bytes::copy_from_slice(&self.body)));
        self.cache.keep(&object);
        if let Some(baton) = self.baton.take() {
            land(&self.cache, baton, &object, now_ms);
        }
        Some(object)
    }

    /// The body ended with trailers: an answer out of the cache could not repeat them, so it is not stored.
    pub fn refuse_trailers(mut self) {
        self.give_up();
    }

    fn give_up(&mut self) {
        if let Some(draft) = self.draft.take() {
            self.cache.0.pass.mark(self.hash, draft.answered_ms);
        }
        self.cache
            .0
            .collecting
            .fetch_sub(self.body.len(), Ordering::AcqRel);
        self.body = BytesMut::new();
        if let Some(baton) = self.baton.take() {
            baton.useless();
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // An aborted body is never stored; whoever waits next takes over when the baton drops.
        self.cache
            .0
            .collecting
            .fetch_sub(self.body.len(), Ordering::AcqRel);
    }
}

impl Cache {
    fn keep(&self, object: &Arc<Stored>) {
        self.0.stats.stored.fetch_add(1, Ordering::Relaxed);
        self.remember(object, object.loaded_ms);
        if let Some(shared) = &self.0.shared {
            shared.keep(object);
        }
    }

    /// Into memory, where unsafe requests must find its address.
    pub(super) fn remember(&self, object: &Arc<Stored>, now_ms: u64) {
        let until_ms = now_ms.saturating_add(object.useful_ms());
        self.0.ledger.expect(&object.subject, until_ms);
        self.0.memory.insert(object);
    }

    fn drop_object(&self, key: &[u8]) {
        self.0.memory.remove(key);
        if let Some(shared) = &self.0.shared {
            shared.forget(key);
        }
    }
}

/// Ends a flight with an object: for everybody when it is fresh, else each has to ask for itself.
fn land(cache: &Cache, baton: Baton, object: &Arc<Stored>, now_ms: u64) {
    match object.usable(&cache.0.ledger, now_ms) {
        Use::Fresh(_) => baton.stored(Arc::clone(object)),
        Use::Stale { .. } | Use::Gone => baton.useless(),
    }
}

/// The leader's answer, if it fits one who waited: same variant, allowed for this caller, and still good.
fn shared_answer(
    cache: &Cache,
    start: &Start,
    object: Arc<Stored>,
    view: &RequestView<'_>,
    rule: &RulePolicy,
    now_ms: u64,
) -> Option<Answer> {
    let primary = &start.key[..start.primary_len];
    let same = if object.vary.is_empty() {
        *object.key == *primary
    } else {
        *object.key == *secondary(primary, &object.vary, view)
    };
    if !same || start.caller.may_use(rule.scope, &object.terms).is_err() {
        return None;
    }
    let outcome = match object.usable(&cache.0.ledger, now_ms) {
        Use::Fresh(_) => Outcome::Collapsed,
        Use::Stale { if_error: true, .. } => Outcome::StaleError,
        Use::Stale { .. } | Use::Gone => return None,
    };
    cache.0.stats.count(outcome);
    Some(Answer::new(object, view, start.facts, outcome, now_ms))
}

fn subject(view: &RequestView<'_>, tags: Vec<String>) -> Subject {
    Subject::new(
        view.host,
        view.path,
        view.query,
        view.tenant,
        view.service,
        tags,
    )
}

/// The announced length; lines that contradict each other were refused long before.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(CONTENT_LENGTH) else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .and_then(|v| v.parse().ok())
        .map(Some)
        .ok_or(Refusal::BadLength)
}

/// Variants are fetched apart once they are known, credential classes always.
fn flight_key(start: &Start) -> Vec<u8> {
    let mut flight = Vec::with_capacity(start.key.len() + 1);
    flight.extend_from_slice(&start.key);
    flight.push(start.caller.class());
    flight
}
