//! Two verifiers behind one: our own, then the foreign issuer's for tokens whose key is not ours.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Denied, TokenVerifier, Verified};

/// Why our verifier leaves a token to the next one.
const NOT_OURS: Denied = Denied("unknown_key");

/// Our own verifier before a foreign one.
pub(crate) struct Chain {
    own: Arc<dyn TokenVerifier>,
    foreign: Arc<dyn TokenVerifier>,
}

impl Chain {
    /// One verifier for all that there are.
    pub(crate) fn of(
        own: Option<Arc<dyn TokenVerifier>>,
        foreign: Option<Arc<dyn TokenVerifier>>,
    ) -> Option<Arc<dyn TokenVerifier>> {
        match (own, foreign) {
            (Some(own), Some(foreign)) => Some(Arc::new(Self { own, foreign })),
            (own, foreign) => own.or(foreign),
        }
    }

    /// Only our own tokens bear a stamp.
    fn whose(&self, token: &Verified) -> &dyn TokenVerifier {
        if token.stamp.is_some() {
            &*self.own
        } else {
            &*self.foreign
        }
    }
}

impl TokenVerifier for Chain {
    fn verify(&self, token: &str, now_s: i64) -> Result<Verified, Denied> {
        match self.own.verify(token, now_s) {
            Err(NOT_OURS) => self.foreign.verify(token, now_s),
            answered => answered,
        }
    }

    /// Both rise and never fall, so that their sum rises with either.
    fn epoch(&self) -> u64 {
        self.own.epoch().wrapping_add(self.foreign.epoch())
    }

    fn check(&self, token: &Verified, address: Option<IpAddr>) -> Result<(), Denied> {
        self.whose(token).check(token, address)
    }

    fn key_missed(&self) {
        self.own.key_missed();
        self.foreign.key_missed();
    }

    fn reason(&self, token: &Verified) -> Option<Arc<str>> {
        self.whose(token).reason(token)
    }

    fn refuses_stale(&self, sensitive: bool) -> bool {
        self.own.refuses_stale(sensitive)
    }
}
