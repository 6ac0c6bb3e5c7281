//! Mail of the real binary: a process that is killed while it sends loses nothing (CT-93, ID-143).

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use portico_testkit::SmtpServer;
use serde_json::json;
use tokio::net::TcpListener;

use crate::house::House;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_mail_outlives_the_process_that_was_sending_it() {
    // Takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let settings = |port: u16| {
        let text = format!(
            "[server]\npublic_url = \"https://id.example.com\"\n[settings]\n\"mail.smtp.host\" = \"127.0.0.1\"\n\
             \"mail.smtp.port\" = {port}\n\"mail.smtp.tls\" = \"none\"\n\"mail.from\" = \"id@example.com\"\n"
        );
        std::fs::write(folder.path().join("portico.toml"), text).unwrap();
    };
    settings(silent.local_addr().unwrap().port());
    let mut house = House::at(Arc::clone(&folder), &[]);
    let account = json!({"method": "email", "identifier": "anna@example.com",
        "password": "correct-Horse-9-battery", "locale": "en", "device": {"platform": "cli"}});
    let answer = house
        .operate(
            reqwest::Method::POST,
            "/api/identity/register",
            Some(&account),
        )
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let (_sending, _) = tokio::time::timeout(PATIENCE, silent.accept())
        .await
        .unwrap()
        .unwrap();
    house.signal(Signal::SIGKILL);
    house.wait();
    let server = SmtpServer::start().await;
    settings(server.port());
    let house = House::at(folder, &[]);
    let mails = server.wait_for(1).await;
    assert_eq!(mails[0].to, "anna@example.com");
    // The link is ours, whatever host a request named.
    let text = mails[0].text();
    assert!(text.contains("https://id.example.com/auth/"), "{text}");
    let token = text
        .split('#')
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    assert!(!house.log().contains(token) && !house.log().contains("anna@example.com"));
}
