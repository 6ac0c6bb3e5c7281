//! Addresses of our own pages in mails and redirects: built from the configuration, never from a request.

use portico_base::Secret;
use portico_config::Config;
use portico_host::OwnAddresses;

/// Where clients reach this installation.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    /// Configured: scheme, host and port, without a slash at the end.
    public: Option<String>,
    own: OwnAddresses,
}

impl Links {
    /// `server.public_url`, else https with `server.domain`, else the public listener of this process.
    pub(crate) fn new(config: &Config, own: &OwnAddresses) -> Self {
        let public = match (&config.server.public_url, &config.server.domain) {
            (Some(url), _) => Some(url.url().as_str().trim_end_matches('/').to_owned()),
            (None, Some(domain)) => Some(format!("https://{}", domain.as_str())),
            (None, None) => None,
        };
        Self {
            public,
            own: own.clone(),
        }
    }

    /// A fixed public address.
    #[cfg(test)]
    pub(crate) fn fixed(public: &str) -> Self {
        Self {
            public: Some(public.to_owned()),
            own: OwnAddresses::default(),
        }
    }

    /// The configured address: the `iss` of our tokens, which a port that was free today must not change.
    pub(crate) fn configured(&self) -> Option<&str> {
        self.public.as_deref()
    }

    /// The public address without a slash at the end. A process that is not told of one and has no public
    /// listener knows of none: then it is that of a default start on this machine.
    pub(crate) fn base(&self) -> String {
        self.public
            .clone()
            .or_else(|| self.own.url("https"))
            .or_else(|| self.own.url("http"))
            .unwrap_or_else(|| "http://127.0.0.1:8080".to_owned())
    }

    /// A page with a one-time token behind `#`, which no server, proxy or log sees.
    pub(crate) fn with_token(&self, page: &str, token: &Secret<String>) -> String {
        format!("{}{page}#{}", self.base(), token.expose())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stand_behind_the_hash() {
        let links = Links::fixed("https://id.example.com");
        let link = links.with_token("/auth/reset", &Secret::from("abc"));
        assert_eq!(link, "https://id.example.com/auth/reset#abc");
    }

    #[test]
    fn without_a_configured_address_the_listener_counts() {
        let own = OwnAddresses::default();
        let links = Links {
            public: None,
            own: own.clone(),
        };
        own.name("http", "http://127.0.0.1:41234");
        assert_eq!(links.base(), "http://127.0.0.1:41234");
    }
}
