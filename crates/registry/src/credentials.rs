//! Who is behind a registration token or an instance's secret: answered from memory.

use std::sync::Arc;

use portico_base::Principal;
use portico_base::secret::token_hash;
use portico_contract::credentials::CredentialSource;

use crate::domain::token::{SECRET_PREFIX, TOKEN_PREFIX, instance};
use crate::hub::Core;

/// Knows registration tokens.
pub(crate) struct Registrars(pub Arc<Core>);

impl CredentialSource for Registrars {
    fn prefix(&self) -> &'static str {
        TOKEN_PREFIX
    }

    fn find(&self, token: &str) -> Option<Arc<Principal>> {
        let hash = token_hash(token);
        let model = self.0.model.read();
        let known = model.token_by_hash(&hash)?;
        (!known.is_expired(self.0.clock.now())).then(|| Arc::clone(&known.principal))
    }
}

/// Knows the secrets of instances.
pub(crate) struct Instances(pub Arc<Core>);

impl CredentialSource for Instances {
    fn prefix(&self) -> &'static str {
        SECRET_PREFIX
    }

    fn find(&self, token: &str) -> Option<Arc<Principal>> {
        let hash = token_hash(token);
        let model = self.0.model.read();
        let entry = model.instance_by_secret(&hash)?;
        let secret = entry.instance.secret.as_ref()?;
        if secret
            .previous
            .is_some_and(|(old, until)| old == hash && until <= self.0.clock.now())
        {
            return None;
        }
        let service = model.service_of(&entry.instance)?;
        // The token may have gone since; then what it granted has gone with it.
        let owner = &entry.instance.owner;
        let token = owner
            .token()
            .and_then(|id| model.token(id))
            .filter(|token| !token.is_expired(self.0.clock.now()));
        let scopes = token.map_or(&[][..], |token| &token.scopes);
        Some(instance(
            entry.instance.id,
            &service.name,
            service.tenant,
            scopes,
        ))
    }
}
