//! How this process reaches its gateway, and how it stops.

use std::time::Duration;

use crate::secret::Secret;

/// Options of a plug-in; everything that is not about the service itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// The gateway, `PORTICO_URL`.
    pub url: String,
    /// Registration token (`prt_`) or operator's token (`pop_`), `PORTICO_TOKEN`.
    pub token: Option<Secret>,
    /// `PORTICO_INSTANCE_SECRET`: somebody else registers this process, as `portico run` does.
    pub instance_secret: Option<Secret>,
    /// Name to use instead of the configuration's, `PORTICO_SERVICE`.
    pub service: Option<String>,
    /// Port to use instead of the configuration's, `PORT`.
    pub port: Option<u16>,
    /// How long to serve on after deregistering, while the news travels; default 1 s.
    pub linger: Duration,
    /// How long to wait for what is in flight after that; default 30 s.
    pub drain: Duration,
}

/// The environment has a value that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the environment's PORT is not a port: `{0}`")]
pub struct OptionsError(String);

impl Default for Options {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8080".to_owned(),
            token: None,
            instance_secret: None,
            service: None,
            port: None,
            linger: Duration::from_secs(1),
            drain: Duration::from_secs(30),
        }
    }
}

impl Options {
    /// Options from the environment.
    ///
    /// # Errors
    /// When `PORT` is not a port.
    pub fn from_env() -> Result<Self, OptionsError> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(env: impl Fn(&str) -> Option<String>) -> Result<Self, OptionsError> {
        let given = |name: &str| env(name).filter(|value| !value.trim().is_empty());
        let port = given("PORT")
            .map(|text| text.trim().parse().map_err(|_| OptionsError(text)))
            .transpose()?;
        Ok(Self {
            url: given("PORTICO_URL").unwrap_or_else(|| Self::default().url),
            // The line of the operator's token file does as well: `Authorization: Bearer pop_…`.
            token: given("PORTICO_TOKEN")
                .and_then(|line| line.split_whitespace().last().map(Secret::from)),
            instance_secret: given("PORTICO_INSTANCE_SECRET").map(Secret::from),
            service: given("PORTICO_SERVICE"),
            port,
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_environment() {
        let options = Options::read(|name| match name {
            "PORTICO_TOKEN" => Some("Authorization: Bearer pop_1\n".to_owned()),
            "PORT" => Some("81".to_owned()),
            "PORTICO_SERVICE" => Some(String::new()),
            _ => None,
        })
        .unwrap();
        assert_eq!(options.token.as_ref().unwrap().expose(), "pop_1");
        assert_eq!((options.port, options.service.as_deref()), (Some(81), None));
        assert_eq!(options.url, "http://127.0.0.1:8080");
        assert!(!format!("{options:?}").contains("pop_1"));
        let wrong = Options::read(|name| (name == "PORT").then(|| "70000".to_owned()));
        assert!(wrong.unwrap_err().to_string().contains("70000"));
    }
}
