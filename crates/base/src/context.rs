//! What every use-case takes first: who calls, for which tenant, when, and under which request.

use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::clock::{Clock, Timestamp};
use crate::id;
use crate::principal::{Access, Principal, Refusal, authorise};
use crate::random::Random;

/// Who is behind a request, as the door found out. Travels as a typed request extension.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whoever acts.
    pub principal: Arc<Principal>,
    /// `X-Request-Id` of the request.
    pub request_id: Arc<str>,
    /// W3C trace id in hex, when the request is traced.
    pub trace_id: Option<Arc<str>>,
    /// Address of the client, right of every trusted proxy.
    pub address: Option<IpAddr>,
    /// `User-Agent`, at most 200 bytes.
    pub agent: Option<Arc<str>>,
    /// True when the connection came over loopback without any proxy in between.
    pub direct_loopback: bool,
}

impl Caller {
    /// A caller without a network behind it (jobs, command line, tests).
    #[must_use]
    pub fn internal(principal: Principal, request_id: &str) -> Self {
        Self {
            principal: Arc::new(principal),
            request_id: Arc::from(request_id),
            trace_id: None,
            address: None,
            agent: None,
            direct_loopback: true,
        }
    }
}

/// The context of a use-case. Time and randomness come from here, never from the system.
#[derive(Clone)]
pub struct Context {
    /// Who calls.
    pub caller: Caller,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where randomness comes from.
    pub random: Arc<dyn Random>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Whoever acts.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.caller.principal
    }

    /// The tenant acted in.
    #[must_use]
    pub fn tenant(&self) -> Uuid {
        self.caller.principal.tenant
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A new UUIDv7.
    #[must_use]
    pub fn new_id(&self) -> Uuid {
        id::new_id(&*self.clock, &*self.random)
    }

    /// Checks a right of the caller.
    ///
    /// # Errors
    /// Says whether a credential or a permission is missing.
    pub fn authorise(&self, access: &Access) -> Result<(), Refusal> {
        authorise(self.principal(), access, self.now().timestamp())
    }
}
