//! How often something may be tried, by address and by account (ID-160): counters that may be lost.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use ipnet::IpNet;
use parking_lot::Mutex;
use portico_base::envelope::MasterKeys;
use portico_base::secret::token_hash;
use portico_base::{Clock, Context, Secret};
use portico_contract::settings::{Key, Settings};
use portico_state::{KeyHasher, Limiter, SharedStore, State};
use portico_telemetry::metrics::{Counter, CounterFamily, Registry};

use crate::error::{Error, Result, reason};
use crate::settings::apple;
use crate::settings::limit::{self, Rate};

/// What is counted. Each has its setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Logins with a password, by address.
    Password,
    /// Codes tried, by address.
    Otp,
    /// Refreshes, by session.
    Refresh,
    /// Refreshes with a token that is not good, by address.
    RefreshInvalid,
    /// Registrations, by address.
    Registration,
    /// Whether a user name is taken, by address.
    Username,
    /// Mails and messages for a reset or a verification, by account.
    ResetAccount,
    /// The same, by address.
    ResetAddress,
    /// Steps of Sign in with Apple, by address.
    Apple,
}

impl Limit {
    const fn parts(self) -> (&'static str, &'static Key<Vec<Rate>>) {
        match self {
            Self::Password => ("password", &limit::PASSWORD_PER_ADDRESS),
            Self::Otp => ("otp", &limit::OTP_PER_ADDRESS),
            Self::Refresh => ("refresh", &limit::REFRESH_PER_SESSION),
            Self::RefreshInvalid => ("refresh_invalid", &limit::REFRESH_INVALID_PER_ADDRESS),
            Self::Registration => ("registration", &limit::REGISTRATION_PER_ADDRESS),
            Self::Username => ("username", &limit::USERNAME_PER_ADDRESS),
            Self::ResetAccount => ("reset_account", &limit::RESET_PER_ACCOUNT),
            Self::ResetAddress => ("reset_address", &limit::RESET_PER_ADDRESS),
            Self::Apple => ("apple", &apple::PER_ADDRESS),
        }
    }
}

/// Declares the families, for the documentation.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[LOCKS.family()]);
}

/// The counters of a process, shared with other replicas where there is a Redis.
pub(crate) struct Limits {
    limiter: Limiter,
    store: SharedStore,
    hasher: KeyHasher,
    mac: hmac::Key,
    settings: Settings,
    clock: Arc<dyn Clock>,
    pub locks: Locks,
    under_way: Arc<Mutex<HashMap<Subject, u32>>>,
}

static LOCKS: CounterFamily = CounterFamily::new(
    "portico_identity_locks_total",
    "accounts that have to wait and addresses that are blocked after too many failures",
    &["kind"],
    4,
);

/// What had to be locked.
pub(crate) struct Locks {
    pub account: Counter,
    pub factor: Counter,
    pub address: Counter,
}

/// Whose failures are counted, as a keyed hash.
pub(crate) type Subject = [u8; 32];

impl Limits {
    pub(crate) fn new(
        state: &State,
        settings: Settings,
        clock: Arc<dyn Clock>,
        keys: &MasterKeys,
        registry: &Registry,
    ) -> Self {
        // The same on every replica, and unknown to clients.
        let seed = token_hash(&format!("identity limits|{}", keys.check_value()));
        let seed = seed
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let key = keys
            .derive(keys.current(), "portico/limits/1")
            .expect("the current master key is one of the master keys");
        Self {
            limiter: state.limiter().clone(),
            store: state.store().clone(),
            hasher: KeyHasher::new(seed),
            mac: hmac::Key::new(hmac::HMAC_SHA256, key.expose()),
            settings,
            clock,
            locks: Locks {
                account: registry.counter(&LOCKS).with(&["account"]),
                factor: registry.counter(&LOCKS).with(&["factor"]),
                address: registry.counter(&LOCKS).with(&["address"]),
            },
            under_way: Arc::default(),
        }
    }

    /// A keyed hash of parts: what is stored of names that somebody typed.
    pub(crate) fn subject(&self, parts: &[&str]) -> Subject {
        let mut mac = hmac::Context::with_key(&self.mac);
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        let mut out = [0; 32];
        out.copy_from_slice(mac.sign().as_ref());
        out
    }

    /// Begins a try of a subject of which `free` may be under way at once: what is tried in parallel must not
    /// pass a limit that counts failures only when they are known.
    pub(crate) fn begin(&self, subject: Subject, free: u32) -> Option<UnderWay> {
        let mut all = self.under_way.lock();
        let count = all.entry(subject).or_insert(0);
        if *count >= free.max(1) {
            return None;
        }
        *count += 1;
        Some(UnderWay {
            all: Arc::clone(&self.under_way),
            subject,
        })
    }

    /// Notes a wrong pair of name and password of a network; true when there were so many different ones
    /// that the network is to be blocked (ID-162). Kept as truncated keyed hashes, never in the database.
    pub(crate) async fn is_stuffing(
        &self,
        net: IpNet,
        name: &str,
        password: &Secret<String>,
    ) -> bool {
        let most = self.settings.system(&limit::STUFFING_PAIRS);
        let window_s = self.settings.system(&limit::STUFFING_WINDOW_S);
        let window = Duration::from_secs(u64::from(window_s));
        let pair = self.subject(&["pair", name, password.expose()]);
        let pair = hex::encode(&pair[..8]);
        if !self
            .claim(&format!("identity:pair:{net}:{pair}"), window)
            .await
        {
            return false;
        }
        // Each different pair takes the first free place for the window, so that the number of taken places
        // is the number of pairs in it, on all replicas together.
        for place in 1..=most {
            if self
                .claim(&format!("identity:pairs:{net}:{place}"), window)
                .await
            {
                return place == most;
            }
        }
        true
    }

    /// Forgets what a network has tried.
    pub(crate) async fn forget_pairs(&self, net: IpNet) {
        for place in 1..=self.settings.system(&limit::STUFFING_PAIRS) {
            // What cannot be removed ends with its window.
            let _ = self
                .store
                .remove(&format!("identity:pairs:{net}:{place}"))
                .await;
        }
    }

    async fn claim(&self, key: &str, window: Duration) -> bool {
        // Without Redis nothing is known about other tries: not counting is what losing counters means.
        self.store.claim(key, window).await.unwrap_or(false)
    }

    /// Counts one try of `key`.
    ///
    /// # Errors
    /// 429 with the time until the next one is possible.
    pub(crate) fn check(&self, limit: Limit, key: &str) -> Result<()> {
        let (name, setting) = limit.parts();
        let now = u64::try_from(self.clock.now().timestamp_micros()).unwrap_or(0) * 1_000;
        for rate in self.settings.system(setting) {
            let number = self.hasher.key(&[
                name.as_bytes(),
                &rate.window_s.to_le_bytes(),
                key.as_bytes(),
            ]);
            let per_s = f64::from(rate.count) / f64::from(rate.window_s);
            let gcra = portico_state::Limit::new(per_s, rate.count);
            let decision = self.limiter.check(number, gcra, now);
            if let Some(seconds) = decision.retry_after_s() {
                return Err(Error::Later(reason::RATE_LIMITED, seconds));
            }
        }
        Ok(())
    }

    /// Counts one try of the caller's network. A caller without a network (the command line, jobs) is not counted.
    ///
    /// # Errors
    /// As [`Limits::check`].
    pub(crate) fn check_address(&self, limit: Limit, cx: &Context) -> Result<()> {
        match cx.caller.address {
            Some(address) => self.check(limit, &network(address).to_string()),
            None => Ok(()),
        }
    }
}

/// A try that is under way; it ends when this is dropped.
pub(crate) struct UnderWay {
    all: Arc<Mutex<HashMap<Subject, u32>>>,
    subject: Subject,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(count) = all.get_mut(&self.subject) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.subject);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 address, which is one customer's (ID-164).
pub(crate) fn network(address: IpAddr) -> IpNet {
    let address = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    let prefix = if address.is_ipv4() { 32 } else { 64 };
    IpNet::new(address, prefix).map_or_else(|_| IpNet::from(address), |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use chrono::Duration as Span;
    use portico_base::{Fault as _, ManualClock};
    use portico_state::Deps;

    use super::*;

    fn limits(clock: &ManualClock) -> Limits {
        let deps = Deps {
            clock: Arc::new(clock.clone()),
            ..Deps::system(&Registry::default())
        };
        let (state, _) = State::local(&deps);
        Limits::new(
            &state,
            Settings::defaults(),
            Arc::new(clock.clone()),
            &MasterKeys::new("mk1", [1; 32]),
            &Registry::default(),
        )
    }

    #[test]
    fn both_windows_of_a_limit_hold() {
        let clock = ManualClock::at(portico_base::clock::from_unix_ms(1_767_225_600_000));
        let limits = limits(&clock);
        let pass = |n: u32| {
            (0..n)
                .filter(|_| limits.check(Limit::Password, "a").is_ok())
                .count()
        };
        assert_eq!(pass(30), 10, "ten a minute");
        let refused = limits.check(Limit::Password, "a").unwrap_err();
        assert_eq!(refused.retry_after_s(), Some(6));
        assert!(
            limits.check(Limit::Password, "b").is_ok(),
            "others have their own"
        );
        let mut all = 10;
        for _ in 0..9 {
            clock.advance(Span::minutes(1));
            all += pass(30);
        }
        assert!(
            (50..60).contains(&all),
            "{all}: fifty an hour, and what flowed back meanwhile"
        );
    }

    #[test]
    fn tries_at_once_are_bounded() {
        let limits = limits(&ManualClock::at(portico_base::clock::from_unix_ms(0)));
        let (one, two) = (limits.subject(&["a"]), limits.subject(&["b"]));
        let held: Vec<_> = (0..9).map_while(|_| limits.begin(one, 3)).collect();
        assert_eq!(held.len(), 3);
        assert!(limits.begin(two, 3).is_some());
        drop(held);
        assert!(limits.begin(one, 0).is_some(), "one is always possible");
        assert!(limits.under_way.lock().is_empty());
        assert_ne!(limits.subject(&["ab", "c"]), limits.subject(&["a", "bc"]));
    }

    #[tokio::test]
    async fn only_different_pairs_within_the_window_are_stuffing() {
        let clock = ManualClock::at(portico_base::clock::from_unix_ms(1_767_225_600_000));
        let limits = limits(&clock);
        let net = network("192.0.2.7".parse().unwrap());
        let wrong = async |n: u32| {
            let password = Secret::new(format!("password {n}"));
            limits.is_stuffing(net, "anna", &password).await
        };
        for n in 0..14 {
            assert!(!wrong(n).await, "{n}");
            assert!(!wrong(n).await, "the same again is no other one");
        }
        let other = network("192.0.2.8".parse().unwrap());
        assert!(!limits.is_stuffing(other, "anna", &Secret::from("x")).await);
        clock.advance(Span::seconds(10_799));
        assert!(wrong(14).await, "the fifteenth");
        clock.advance(Span::seconds(1));
        assert!(!wrong(15).await, "the window of the others has closed");
        limits.forget_pairs(net).await;
        assert!(!wrong(16).await);
    }

    #[test]
    fn a_network_is_one_client() {
        let net = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(net("192.0.2.7"), "192.0.2.7/32");
        assert_eq!(net("::ffff:192.0.2.7"), "192.0.2.7/32");
        assert_eq!(net("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
    }
}
