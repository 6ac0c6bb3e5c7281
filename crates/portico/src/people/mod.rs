//! Commands about people, over the API of a running Portico.

mod admin;
mod apikey;
mod argon2;
mod export;
mod keys;
mod sms;
mod token;
mod user;

pub(crate) use admin::run as admin;
pub(crate) use apikey::run as apikey;
pub(crate) use argon2::run as argon2_tune;
pub(crate) use keys::run as keys;
pub(crate) use sms::run as sms;
pub(crate) use token::run as token;
pub(crate) use user::run as user;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::cli::WhoArgs;
use crate::client::{Client, encoded};

/// Prints an answer as JSON for programs.
fn print_json(value: &Value) -> Result<()> {
    crate::text::print(&(serde_json::to_string_pretty(value)? + "\n"));
    Ok(())
}

/// The user that somebody named; where no tenant is named, `default` is looked at first, then `system`.
async fn find(client: &Client, who: &WhoArgs) -> Result<Value> {
    let tenants = match &who.tenant {
        Some(tenant) => vec![tenant.as_str()],
        None => vec!["default", "system"],
    };
    for tenant in tenants {
        let path = format!(
            "/api/identity/users?tenant={}&{}={}&limit=2",
            encoded(tenant),
            parameter(&who.user),
            encoded(&who.user)
        );
        let page = client.get(&path).await?;
        let found = page["items"].as_array().cloned().unwrap_or_default();
        let exact = |user: &&Value| parameter(&who.user) != "name" || is_named(user, &who.user);
        if let Some(user) = found.iter().find(exact) {
            return Ok(user.clone());
        }
    }
    bail!("there is no user {}", who.user)
}

fn is_named(user: &Value, name: &str) -> bool {
    user["username"]
        .as_str()
        .is_some_and(|username| username.to_lowercase() == name.to_lowercase())
}

/// By what a user is looked for.
fn parameter(text: &str) -> &'static str {
    let digits = text.trim_start_matches('+');
    if uuid::Uuid::parse_str(text).is_ok() {
        "id"
    } else if text.contains('@') {
        "email"
    } else if digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit()) {
        "phone"
    } else {
        "name"
    }
}

/// Path of a user's resource.
fn of_user(user: &Value, rest: &str) -> String {
    let id = user["id"].as_str().unwrap_or_default();
    format!("/api/identity/users/{}{rest}", encoded(id))
}

/// How a user is called.
fn called(user: &Value) -> String {
    ["username", "email", "phone", "id"]
        .into_iter()
        .find_map(|name| user[name].as_str())
        .map_or_else(String::new, crate::table::plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn people_are_named_as_people_name_them() {
        for (text, wanted) in [
            ("01900000-0000-7000-8000-00000000dead", "id"),
            ("ada@example.com", "email"),
            ("+8613812345678", "phone"),
            ("13812345678", "phone"),
            ("ada", "name"),
            ("a12345", "name"),
        ] {
            assert_eq!(parameter(text), wanted, "{text}");
        }
        let user = json!({ "username": "Ada", "id": "1" });
        assert!(is_named(&user, "ada") && !is_named(&user, "ad"));
        assert_eq!(called(&user), "Ada");
    }
}
