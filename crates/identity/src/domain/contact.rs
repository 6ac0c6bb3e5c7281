//! User names, e-mail addresses and phone numbers: their form, and the key that makes them unique (ID-11).

/// What somebody types to say who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identifier {
    /// Its key.
    Username(String),
    /// In lower case.
    Email(String),
    /// E.164.
    Phone(String),
}

/// What makes a user name unique.
pub(crate) fn username_key(name: &str) -> String {
    name.to_lowercase()
}

/// What makes an e-mail address unique.
pub(crate) fn email_key(address: &str) -> String {
    address.to_lowercase()
}
