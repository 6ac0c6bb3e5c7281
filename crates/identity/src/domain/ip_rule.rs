//! Networks that are refused or allowed (ID-162, ID-163), and which rule decides about an address.

use std::net::IpAddr;

use ipnet::IpNet;
use portico_base::Timestamp;
use portico_contract::address_rules::AddressBlocked;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Who made a rule, where nobody did.
pub(crate) const STUFFING: &str = "stuffing";

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = IpRuleKind)]
pub(crate) enum RuleKind {
    Allow,
    Deny,
}

impl RuleKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Allow, Self::Deny]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// A rule as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IpRule {
    pub id: Uuid,
    pub net: IpNet,
    pub kind: RuleKind,
    /// Note of the person, or why the machine made it.
    pub reason: String,
    /// Subject of the person, or [`STUFFING`].
    pub source: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

impl IpRule {
    /// True for what the machine did by itself.
    pub(crate) fn is_block(&self) -> bool {
        self.source == STUFFING && self.kind == RuleKind::Deny
    }
}

/// All rules, sorted so that the one that decides is found first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RuleSet(Vec<Entry>);

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    net: IpNet,
    kind: RuleKind,
    /// Made by the machine.
    block: bool,
    until_s: i64,
}

impl RuleSet {
    /// The rules in force.
    pub(crate) fn new<'a>(rules: impl IntoIterator<Item = &'a IpRule>) -> Self {
        let mut entries: Vec<Entry> = rules
            .into_iter()
            .map(|rule| Entry {
                net: rule.net.trunc(),
                kind: rule.kind,
                block: rule.is_block(),
                until_s: rule.expires_at.map_or(i64::MAX, |t| t.timestamp()),
            })
            .collect();
        entries.sort_by_key(|e| (u8::MAX - e.net.prefix_len(), e.kind == RuleKind::Allow));
        Self(entries)
    }

    /// The longest network that holds the address decides; of two equal ones the denial.
    pub(crate) fn check(&self, address: IpAddr, now_s: i64) -> Result<(), AddressBlocked> {
        match self.deciding(address, now_s) {
            Some(entry) if entry.kind == RuleKind::Deny => Err(entry.blocked()),
            _ => Ok(()),
        }
    }

    /// The same; and as soon as one network is allowed, nothing else is.
    pub(crate) fn check_admin(&self, address: IpAddr, now_s: i64) -> Result<(), AddressBlocked> {
        match self.deciding(address, now_s) {
            Some(entry) if entry.kind == RuleKind::Deny => Err(entry.blocked()),
            Some(_) => Ok(()),
            None if exempt(address) => Ok(()),
            None if self.lists(now_s) => Err(AddressBlocked { until_s: None }),
            None => Ok(()),
        }
    }

    /// True when an address is on the list of allowed networks.
    pub(crate) fn allows(&self, address: IpAddr, now_s: i64) -> bool {
        self.deciding(address, now_s)
            .is_some_and(|e| e.kind == RuleKind::Allow)
    }

    /// Networks that the machine has blocked.
    pub(crate) fn blocks(&self, now_s: i64) -> usize {
        let live = |e: &&Entry| e.block && e.until_s > now_s;
        self.0.iter().filter(live).count()
    }

    fn lists(&self, now_s: i64) -> bool {
        let mut live = self.0.iter().filter(|e| e.until_s > now_s);
        live.any(|e| e.kind == RuleKind::Allow)
    }

    fn deciding(&self, address: IpAddr, now_s: i64) -> Option<&Entry> {
        if self.0.is_empty() || exempt(address) {
            return None;
        }
        let address = canonical(address);
        self.0
            .iter()
            .find(|e| e.until_s > now_s && e.net.contains(&address))
    }
}

impl Entry {
    fn blocked(&self) -> AddressBlocked {
        AddressBlocked {
            until_s: (self.until_s != i64::MAX).then_some(self.until_s),
        }
    }
}

/// The machine itself is never refused, so that a wrong rule can be repaired.
pub(crate) fn exempt(address: IpAddr) -> bool {
    canonical(address).is_loopback()
}

fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(net: &str, kind: RuleKind, until_s: Option<i64>) -> IpRule {
        IpRule {
            id: Uuid::nil(),
            net: net.parse().unwrap(),
            kind,
            reason: String::new(),
            source: String::new(),
            created_at: Timestamp::default(),
            expires_at: until_s.map(|s| portico_base::clock::from_unix_ms(s * 1_000)),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_network_decides() {
        let set = RuleSet::new(&[
            rule("198.51.100.0/24", RuleKind::Deny, None),
            rule("198.51.100.7/32", RuleKind::Allow, None),
            rule("203.0.113.9/32", RuleKind::Allow, None),
            rule("203.0.113.9/32", RuleKind::Deny, Some(100)),
            rule("2001:db8::/32", RuleKind::Deny, None),
        ]);
        let open = |text: &str, now| set.check(ip(text), now).is_ok();
        assert!(!open("198.51.100.1", 0) && open("198.51.100.7", 0));
        assert!(!open("::ffff:198.51.100.1", 0));
        assert!(!open("203.0.113.9", 99) && open("203.0.113.9", 100));
        assert!(!open("2001:db8:1::5", 0) && open("2001:db9::5", 0));
        assert!(open("192.0.2.1", 0));
        assert_eq!(
            set.check(ip("203.0.113.9"), 0),
            Err(AddressBlocked { until_s: Some(100) })
        );
    }

    #[test]
    fn an_allow_list_closes_administration_to_others() {
        let none = RuleSet::new(&[rule("198.51.100.0/24", RuleKind::Deny, None)]);
        assert!(none.check_admin(ip("192.0.2.1"), 0).is_ok());
        let listed = RuleSet::new(&[rule("10.0.0.0/8", RuleKind::Allow, Some(50))]);
        assert!(listed.check_admin(ip("10.2.3.4"), 0).is_ok());
        assert!(listed.check_admin(ip("192.0.2.1"), 0).is_err());
        assert!(
            listed.check(ip("192.0.2.1"), 0).is_ok(),
            "users come in from everywhere"
        );
        assert!(
            listed.check_admin(ip("192.0.2.1"), 50).is_ok(),
            "the list has ended"
        );
        assert!(listed.allows(ip("10.2.3.4"), 0) && !listed.allows(ip("10.2.3.4"), 50));
    }

    #[test]
    fn this_machine_is_never_refused() {
        let set = RuleSet::new(&[
            rule("127.0.0.0/8", RuleKind::Deny, None),
            rule("::/0", RuleKind::Deny, None),
            rule("10.0.0.0/8", RuleKind::Allow, None),
        ]);
        for text in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(set.check(ip(text), 0).is_ok(), "{text}");
            assert!(set.check_admin(ip(text), 0).is_ok(), "{text}");
        }
    }
}
