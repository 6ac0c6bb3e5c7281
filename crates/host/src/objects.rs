//! Where objects are kept, from the configuration, and whether it works.

use std::sync::Arc;

use portico_config::{Config, ObjectKind};
use portico_objects::{Encryption, Objects, S3Options};
use portico_telemetry::metrics::Registry;

use crate::error::{StartError, exit};
use crate::health::{Check, CheckResult};

/// Files or a bucket. A bucket is not asked yet: a process that is up while the bucket is away serves
/// everything else.
///
/// # Errors
/// When the directory cannot be made, or the options contradict each other.
pub fn of(config: &Config, metrics: &Registry) -> Result<Objects, StartError> {
    let section = &config.objects;
    if section.kind == ObjectKind::Local {
        return Objects::local(&section.path, metrics).map_err(|error| {
            let path = section.path.display();
            let hint = "give this user the right, or set `objects.path`";
            StartError::new(exit::FAILED, format!("cannot write to {path}; {hint}")).because(error)
        });
    }
    let keys = section.access_key.as_ref().zip(section.secret_key.as_ref());
    let options = S3Options {
        endpoint: section.endpoint.as_ref().map(|url| url.url().clone()),
        region: section.region.clone(),
        bucket: section.bucket.clone(),
        prefix: section.prefix.clone(),
        credentials: keys.map(|(access, secret)| (access.clone(), secret.clone())),
        path_style: section.path_style,
        encryption: match section.sse {
            portico_config::Encryption::None => Encryption::None,
            portico_config::Encryption::S3 => Encryption::S3,
            portico_config::Encryption::Kms => Encryption::Kms,
        },
    };
    Objects::s3(&options, metrics)
        .map_err(|error| StartError::new(exit::USAGE, format!("objects: {error}")).because(error))
}

/// What the last operation said: a bucket is not asked only to see whether it is there, because each question
/// costs money. Without objects only what needs them fails, so it is never unready.
pub(crate) fn check(objects: &Objects) -> Check {
    let objects = objects.clone();
    Check {
        name: "objects",
        unready_after: None,
        run: Arc::new(move || {
            let result = match objects.trouble() {
                None => CheckResult::Ok,
                Some(why) => CheckResult::Degraded(why.to_owned()),
            };
            Box::pin(std::future::ready(result))
        }),
    }
}
