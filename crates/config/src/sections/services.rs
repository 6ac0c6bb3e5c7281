//! Sections of single services: backup, consul, auth.

use std::path::PathBuf;

use portico_base::Secret;

use crate::key::section;
use crate::net::Name;
use crate::types::Seconds;
use crate::urls::HttpUrl;

section! {
    /// Where backups go.
    pub struct Backup {
        groups { s3: BackupS3 }
        keys {
            /// Directory of backups.
            dir: PathBuf = "<data>/backups",
            /// Public key of an age recipient that backups are encrypted for; none uses a key derived
            /// from the master key.
            recipient: Option<String> = "",
        }
    }
}

section! {
    /// A bucket for backups.
    pub struct BackupS3 {
        keys {
            /// Address of the S3 service; none means AWS.
            endpoint: Option<HttpUrl> = "",
            /// Region of the bucket.
            region: String = "",
            /// Name of the bucket; setting it turns backups to S3 on.
            bucket: String = "",
            /// What every backup's name begins with.
            prefix: String = "",
            /// Access key; it needs to write only.
            access_key: Option<Secret<String>> = "",
            /// Secret key.
            secret_key: Option<Secret<String>> = "",
            /// Bucket in the path instead of the host name.
            path_style: bool = true,
        }
    }
}

section! {
    /// The Consul-compatible API.
    pub struct Consul {
        keys {
            /// Name of the datacenter that clients see.
            datacenter: Name = "dc1",
            /// Least seconds of DeregisterCriticalServiceAfter; smaller wishes are raised to it.
            deregister_min_s: Seconds = 60; range(1, 86_400),
            /// Seconds between two looks for instances that stayed critical too long.
            reap_s: Seconds = 30; range(1, 86_400),
            /// List the built-in services in the catalogue too.
            list_builtin: bool = false,
        }
    }
}

section! {
    /// A further issuer whose tokens the gateway takes.
    pub struct Auth {
        keys {
            /// File with the issuer's keys as JWKS (RFC 7517).
            jwks_file: Option<PathBuf> = "",
            /// Address of the issuer's keys: https, or http on this machine.
            jwks_url: Option<HttpUrl> = "",
            /// The `iss` that tokens must have.
            issuer: Option<String> = "",
            /// The `aud` that tokens must have.
            audience: Option<String> = "",
            /// Claim that names the tenant.
            tenant_claim: String = "tid",
            /// Claim that lists the roles; names of built-in roles in it are ignored.
            roles_claim: String = "roles",
        }
    }
}
