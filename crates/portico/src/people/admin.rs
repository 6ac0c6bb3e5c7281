//! `portico admin`: rescue of people by whoever holds the data directory.

use anyhow::Result;
use serde_json::{Value, json};

use super::{called, find, of_user, print_json};
use crate::cli::{AdminArgs, AdminCommand, NewUserArgs};
use crate::client::Client;
use crate::table::cell;
use crate::text::say;

/// Carries out one command.
pub(crate) async fn run(args: AdminArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    let as_json = args.remote.json;
    match args.command {
        AdminCommand::SetupLink => {
            let link = client.post("/api/identity/setup/link", &json!({})).await?;
            hand_over("set up", &link, "url", as_json)
        }
        AdminCommand::CreateUser(new) => create(&client, new, as_json).await,
        AdminCommand::ResetPassword {
            who,
            temporary,
            mail,
        } => {
            let user = find(&client, &who).await?;
            let how = match (temporary, mail) {
                (true, _) => "temporary",
                (_, true) => "mail",
                _ => "link",
            };
            reset(&client, &user, how, as_json).await
        }
        AdminCommand::Grant { who, roles } => {
            let user = find(&client, &who).await?;
            let mut all: Vec<String> = user["roles"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|r| r.as_str().map(str::to_owned))
                .chain(roles)
                .collect();
            all.sort();
            all.dedup();
            let body = json!({ "roles": all });
            let answer = client.put(&of_user(&user, "/roles"), &body, None).await?;
            if as_json {
                print_json(&answer)?;
            } else {
                say!("{} has the roles {}", called(&user), all.join(", "));
            }
            Ok(0)
        }
    }
}

async fn create(client: &Client, new: NewUserArgs, as_json: bool) -> Result<u8> {
    let tenant = new.tenant.unwrap_or_else(|| {
        let all_powerful = new.roles.iter().any(|role| role == "super_admin");
        if all_powerful { "system" } else { "default" }.to_owned()
    });
    let mut wish = json!({ "tenant": tenant, "username": new.name, "roles": new.roles });
    for (name, value) in [
        ("email", new.email),
        ("phone", new.phone),
        ("display_name", new.display_name),
    ] {
        if let Some(value) = value {
            wish[name] = value.into();
        }
    }
    let user = client.post("/api/identity/users", &wish).await?;
    if !as_json {
        say!("created {} ({})", called(&user), cell(&user["id"]));
    }
    let how = if new.temporary { "temporary" } else { "link" };
    reset(client, &user, how, as_json).await
}

async fn reset(client: &Client, user: &Value, how: &str, as_json: bool) -> Result<u8> {
    let body = json!({ "how": how });
    let mut handed = client
        .post(&of_user(user, "/reset-password"), &body)
        .await?;
    if as_json {
        if handed.is_null() {
            handed = json!({});
        }
        handed["user_id"] = user["id"].clone();
        print_json(&handed)?;
        return Ok(0);
    }
    match how {
        "temporary" => hand_over("password", &handed, "password", false),
        "link" => hand_over("choose a password", &handed, "link", false),
        _ => {
            say!("a link was sent to {}", called(user));
            Ok(0)
        }
    }
}

/// Prints what is shown once: alone on standard output, so that it can be piped.
fn hand_over(what: &str, answer: &Value, name: &str, as_json: bool) -> Result<u8> {
    if as_json {
        print_json(answer)?;
    } else {
        say!("{}", answer[name].as_str().unwrap_or_default());
        match answer["expires_at"].as_str() {
            Some(until) => eprintln!("{what}: good once, until {until}"),
            None => eprintln!("{what}: it has to be changed at the first login"),
        }
    }
    Ok(0)
}
