//! `portico user`: administration of users.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use super::{called, find, of_user, print_json};
use crate::cli::{UserArgs, UserCommand};
use crate::client::{Client, encoded};
use crate::table::{Table, cell, facts};
use crate::text::say;

/// Carries out one command.
pub(crate) async fn run(args: UserArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    let as_json = args.remote.json;
    match args.command {
        UserCommand::List {
            tenant,
            name,
            status,
            role,
        } => {
            let filters = [
                ("tenant", tenant),
                ("name", name),
                ("status", status),
                ("role", role),
            ];
            list(&client, filters, as_json).await
        }
        UserCommand::Show(who) => {
            let user = find(&client, &who).await?;
            if as_json {
                print_json(&user)?;
            } else {
                say!("{}", facts(&user).join("\n"));
            }
            Ok(0)
        }
        UserCommand::Disable { who, reason, until } => {
            let user = find(&client, &who).await?;
            let body = json!({ "reason": reason, "until": until });
            act(&client, &user, ("/disable", &body, "disabled"), as_json).await
        }
        UserCommand::Enable(who) => {
            let user = find(&client, &who).await?;
            act(&client, &user, ("/enable", &json!({}), "enabled"), as_json).await
        }
        UserCommand::Roles { who, set } => {
            let user = find(&client, &who).await?;
            roles(&client, &user, set, as_json).await
        }
        UserCommand::Logout(who) => {
            let user = find(&client, &who).await?;
            act(
                &client,
                &user,
                ("/logout", &json!({}), "logged out"),
                as_json,
            )
            .await
        }
        UserCommand::Export {
            who,
            reason,
            output,
        } => {
            let user = find(&client, &who).await?;
            super::export::run(&client, &user, &reason, output, as_json).await
        }
        UserCommand::Erase { who, reason } => {
            let user = find(&client, &who).await?;
            let body = json!({ "reason": reason });
            act(&client, &user, ("/erase", &body, "being erased"), as_json).await
        }
    }
}

async fn list(client: &Client, filters: [(&str, Option<String>); 4], as_json: bool) -> Result<u8> {
    let query: Vec<String> = filters
        .into_iter()
        .filter_map(|(name, value)| value.map(|v| format!("{name}={}", encoded(&v))))
        .collect();
    let users = client
        .pages(&format!("/api/identity/users?{}", query.join("&")))
        .await?;
    if as_json {
        print_json(&Value::Array(users))?;
        return Ok(0);
    }
    if users.is_empty() {
        say!("there are no such users; make one: portico admin create-user NAME");
        return Ok(0);
    }
    let mut table = Table::new(&[
        "ID",
        "NAME",
        "E-MAIL",
        "PHONE",
        "STATUS",
        "ROLES",
        "LAST LOGIN",
    ]);
    for user in &users {
        let roles = user["roles"].as_array().into_iter().flatten();
        table.row([
            cell(&user["id"]),
            cell(&user["username"]),
            cell(&user["email"]),
            cell(&user["phone"]),
            cell(&user["status"]),
            roles.map(cell).collect::<Vec<_>>().join(", "),
            cell(&user["last_login_at"]),
        ]);
    }
    table.print();
    Ok(0)
}

/// Posts to a user's resource and says what became of the user.
async fn act(
    client: &Client,
    user: &Value,
    (path, body, done): (&str, &Value, &str),
    as_json: bool,
) -> Result<u8> {
    let answer = client
        .call(Method::POST, &of_user(user, path), Some(body))
        .await?;
    if as_json {
        print_json(&answer)?;
    } else {
        say!("{} is {done}", called(user));
    }
    Ok(0)
}

async fn roles(
    client: &Client,
    user: &Value,
    set: Option<Vec<String>>,
    as_json: bool,
) -> Result<u8> {
    let path = of_user(user, "/roles");
    let answer = match set {
        Some(roles) => client.put(&path, &json!({ "roles": roles }), None).await?,
        None => client.get(&path).await?,
    };
    if as_json {
        print_json(&answer)?;
        return Ok(0);
    }
    let mut table = Table::new(&["ROLE", "TITLE", "PERMISSIONS"]);
    for role in answer["items"].as_array().into_iter().flatten() {
        let permissions = role["permissions"].as_array().into_iter().flatten();
        table.row([
            cell(&role["name"]),
            cell(&role["title_en"]),
            permissions.map(cell).collect::<Vec<_>>().join(" "),
        ]);
    }
    table.print();
    Ok(0)
}
