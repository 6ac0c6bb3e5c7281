//! Sign in with Apple at the door: a form that Apple's page sends reaches its one route and no other (ID-66).

use portico_testkit::TestApp;
use reqwest::Method;

const APPLE: &str = "https://appleid.apple.com";

#[tokio::test]
async fn a_page_of_apple_reaches_the_callback_and_nothing_else() {
    let app = TestApp::start().await;
    let anonymous = app.anonymous();
    let post = async |path: &str| {
        let request = anonymous
            .request(Method::POST, &format!("/api/identity{path}"))
            .header("origin", APPLE)
            .header("content-type", "application/x-www-form-urlencoded")
            .body("state=x&id_token=a.b.c");
        anonymous.send(request).await
    };
    // A state that nobody has: the route was reached, and believes nothing.
    post("/login/apple/callback")
        .await
        .expect_problem(401, "identity.ticket_invalid");
    for path in ["/login/apple", "/login/password", "/login/apple/callback/x"] {
        post(path)
            .await
            .expect_problem(403, "gateway.origin_not_allowed");
    }
    // Without an account with Apple nobody is sent there.
    let start = "/api/identity/login/apple/start?return_url=https://app.example.com/";
    anonymous
        .get(start)
        .await
        .expect_problem(400, "identity.https_required");
    let offered = anonymous
        .get("/api/identity/login/methods")
        .await
        .expect(200);
    assert!(
        !offered.json()["methods"].to_string().contains("apple"),
        "{}",
        offered.text
    );
}
