//! Names of instances to addresses, remembered for a few seconds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long an answer is used; the system's resolver does not tell the record's own time.
const FRESH: Duration = Duration::from_secs(5);
/// Names remembered at most.
const NAMES: usize = 1024;

#[derive(Default)]
pub(super) struct Names {
    known: RefCell<HashMap<(Box<str>, u16), Known>>,
}

/// Addresses, and when they were asked for.
type Known = (Rc<[SocketAddr]>, Instant);

impl Names {
    /// All addresses of `host`, in the resolver's order; literal addresses are not looked up.
    ///
    /// # Errors
    /// The resolver's.
    pub(super) async fn lookup(&self, host: &str, port: u16) -> io::Result<Rc<[SocketAddr]>> {
        let literal = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return Ok(Rc::from([SocketAddr::new(ip, port)]));
        }
        let key = (Box::from(host), port);
        if let Some((addresses, at)) = self.known.borrow().get(&key)
            && at.elapsed() < FRESH
        {
            return Ok(Rc::clone(addresses));
        }
        let found: Rc<[SocketAddr]> = tokio::net::lookup_host((host, port)).await?.collect();
        let mut known = self.known.borrow_mut();
        if known.len() >= NAMES {
            known.clear();
        }
        known.insert(key, (Rc::clone(&found), Instant::now()));
        Ok(found)
    }
}
