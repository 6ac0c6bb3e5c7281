//! A proof that waits in a ticket for the next step of its login, without any secret.

use std::collections::BTreeMap;

use portico_base::secret::token_hash;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::device::Platform;
use super::login::{DeviceWish, Proof, Transport};
use super::user::User;

/// Every way in: a ticket keeps the name of its own.
const METHODS: [&str; 9] = [
    "password",
    "sms",
    "apple",
    "invitation",
    "registration",
    "reset",
    "setup",
    "passkey",
    "oidc",
];

/// A proof as a ticket's payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub tenant: Uuid,
    pub user: Uuid,
    method: String,
    amr: Vec<String>,
    aal: u8,
    transport: Transport,
    device_id: Option<String>,
    /// Hash of the device's secret, which the row of the device holds as well.
    secret_hash: Option<[u8; 32]>,
    platform: Platform,
    name: String,
    model: String,
    app_version: String,
    os_version: String,
    fingerprint: BTreeMap<String, String>,
}

impl Kept {
    /// What is kept of a proof.
    pub(crate) fn of(proof: &Proof) -> Self {
        let device = &proof.device;
        Self {
            tenant: proof.user.tenant,
            user: proof.user.id,
            method: proof.method.to_owned(),
            amr: proof.amr.clone(),
            aal: proof.aal,
            transport: proof.transport,
            device_id: device.device_id.clone(),
            secret_hash: device.hash(),
            platform: device.platform,
            name: device.name.clone(),
            model: device.model.clone(),
            app_version: device.app_version.clone(),
            os_version: device.os_version.clone(),
            fingerprint: device.fingerprint.clone(),
        }
    }

    /// The client's own name for the device that began the login.
    pub(crate) fn device_id(&self) -> Option<&str> {
        self.device_id.as_deref()
    }

    /// The proof again, of the user as they are now; nothing when its method is not known any more.
    pub(crate) fn restore(self, user: User) -> Option<Proof> {
        let method = METHODS.into_iter().find(|known| *known == self.method)?;
        Some(Proof {
            user,
            method,
            amr: self.amr,
            aal: self.aal,
            device: DeviceWish {
                device_id: self.device_id,
                device_secret: None,
                secret_hash: self.secret_hash,
                platform: self.platform,
                name: self.name,
                model: self.model,
                app_version: self.app_version,
                os_version: self.os_version,
                fingerprint: self.fingerprint,
            },
            transport: self.transport,
        })
    }
}

impl DeviceWish {
    /// Hash of the secret that the client showed.
    pub(crate) fn hash(&self) -> Option<[u8; 32]> {
        match &self.device_secret {
            Some(secret) => Some(token_hash(secret.expose())),
            None => self.secret_hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use portico_base::{Secret, Timestamp};

    use super::*;

    #[test]
    fn a_kept_proof_returns_without_its_secret() {
        let user = User::new(Uuid::from_u128(1), Uuid::from_u128(2), Timestamp::default());
        let device: DeviceWish = serde_json::from_str(
            r#"{"device_id": "phone-of-anna", "device_secret": "hush-hush", "platform": "ios",
                "fingerprint": {"os": "18"}}"#,
        )
        .unwrap();
        let proof = Proof {
            user: user.clone(),
            method: "sms",
            amr: vec!["sms".to_owned()],
            aal: 1,
            device,
            transport: Transport::Cookie,
        };
        let text = serde_json::to_string(&Kept::of(&proof)).unwrap();
        assert!(!text.contains("hush"), "{text}");
        let back = serde_json::from_str::<Kept>(&text)
            .unwrap()
            .restore(user)
            .unwrap();
        assert_eq!((back.method, back.transport), ("sms", Transport::Cookie));
        assert_eq!(back.device.hash(), Some(token_hash("hush-hush")));
        assert_eq!(back.device.fingerprint["os"], "18");
        assert_eq!(back.device.device_secret, None::<Secret<String>>);
    }
}
