//! Sign in with Apple in a browser: there with a state that is bound to it, back with a code and never with a token (ID-66).

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Request, header};
use portico_base::{Principal, id};
use portico_db::testing::{TestDb, each_backend};
use portico_web::Came;
use serde_json::{Value, json};
use url::Url;

use super::apple::{House, RETURN, code};
use super::apple_standin::{BUNDLE, Behaviour, SERVICES};
use super::rig::{OTHER, read};

/// What a browser has when it is with Apple.
struct Away {
    state: String,
    nonce: String,
    cookie: String,
    redirect_uri: String,
}

fn pairs(url: &str) -> std::collections::HashMap<String, String> {
    Url::parse(url)
        .unwrap()
        .query_pairs()
        .into_owned()
        .collect()
}

fn location(headers: &HeaderMap) -> String {
    headers[header::LOCATION].to_str().unwrap().to_owned()
}

async fn request(
    house: &House,
    who: &Principal,
    (method, path): (&str, &str),
    cookie: Option<&str>,
    body: String,
) -> Response {
    let kind = if body.starts_with('{') {
        "application/json"
    } else {
        "application/x-www-form-urlencoded"
    };
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .extension(Came {
            https: true,
            csrf: false,
        });
    if let Some(cookie) = cookie {
        builder = builder.header("cookie", cookie);
    }
    house.rig.send(who, builder, Body::from(body)).await
}

/// Begins at a path; the answer when it is no redirect.
async fn begin(house: &House, query: &str, cookie: Option<&str>) -> Result<Away, (u16, Value)> {
    let path = format!("/login/apple/start?{query}");
    let answer = request(
        house,
        &Principal::anonymous(),
        ("GET", &path),
        cookie,
        String::new(),
    )
    .await;
    if answer.status() != 302 {
        return Err(read(answer).await);
    }
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    let to = location(answer.headers());
    let asked = pairs(&to);
    assert_eq!(asked["client_id"], SERVICES);
    assert_eq!(asked["response_type"], "code id_token");
    assert_eq!(asked["response_mode"], "form_post");
    assert_eq!(asked["scope"], "name email");
    let set = answer.headers()[header::SET_COOKIE].to_str().unwrap();
    let (cookie, rest) = set.split_once(';').unwrap();
    assert!(cookie.starts_with("__Host-portico_ap="), "{set}");
    assert_eq!(
        rest,
        " Path=/; Max-Age=600; HttpOnly; Secure; SameSite=None"
    );
    Ok(Away {
        state: asked["state"].clone(),
        nonce: asked["nonce"].clone(),
        cookie: cookie.to_owned(),
        redirect_uri: asked["redirect_uri"].clone(),
    })
}

async fn away(house: &House) -> Away {
    let query = serde_urlencoded::to_string([("return_url", RETURN), ("state", "mine & yours")]);
    begin(house, &query.unwrap(), None).await.unwrap()
}

/// What Apple lets the browser post for somebody.
fn form(house: &House, away: &Away, subject: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut claims = house.apple.claims(SERVICES, subject, &away.nonce);
    claims["email"] = format!("{}@example.com", subject.replace('.', "-")).into();
    claims["email_verified"] = "true".into();
    let code = house
        .apple
        .code(SERVICES, subject, Some(&away.redirect_uri));
    let mut form = vec![
        ("state".to_owned(), away.state.clone()),
        ("code".to_owned(), code),
        ("id_token".to_owned(), house.apple.sign(&claims)),
    ];
    form.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    form
}

async fn back(house: &House, form: &[(String, String)], cookie: Option<&str>) -> Response {
    let body = serde_urlencoded::to_string(form).unwrap();
    let path = ("POST", "/login/apple/callback");
    request(house, &Principal::anonymous(), path, cookie, body).await
}

/// Where the browser ends.
async fn end(house: &House, form: &[(String, String)], away: &Away) -> String {
    let answer = back(house, form, Some(&away.cookie)).await;
    assert_eq!(answer.status(), 303);
    assert_eq!(answer.headers()[header::REFERRER_POLICY], "no-referrer");
    let to = location(answer.headers());
    assert!(to.starts_with(RETURN), "{to}");
    assert!(
        !to.contains("eyJ") && !to.contains("ptr_"),
        "no token: {to}"
    );
    assert_eq!(pairs(&to)["state"], "mine & yours");
    to
}

async fn redeem(house: &House, code: &str, more: Value) -> (u16, Value) {
    let mut body = json!({"code": code, "device": {"platform": "web"}});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    house.post("/login/exchange", body).await
}

#[tokio::test]
async fn a_browser_goes_to_apple_and_comes_back_with_a_code() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let away = away(&house).await;
        assert_eq!(
            away.redirect_uri,
            "https://id.example.com/api/identity/login/apple/callback"
        );
        let name =
            json!({"name": {"firstName": "雷", "lastName": "李"}, "email": "evil@example.com"});
        let form = form(&house, &away, "001.lei", &[("user", &name.to_string())]);
        let to = end(&house, &form, &away).await;
        let code = pairs(&to)["code"].clone();
        let (status, answer) = redeem(&house, &code, json!({})).await;
        assert_eq!((status, &answer["status"]), (200, &json!("ok")), "{answer}");
        let id = answer["user"]["id"].as_str().unwrap().parse().unwrap();
        let user = house.rig.get_user(id::TENANT_DEFAULT, id).await;
        assert_eq!(user.display_name, "李雷");
        assert_eq!(
            user.email.as_deref(),
            Some("001-lei@example.com"),
            "not the form's"
        );
        assert!(house.identities(&user).await[0].refresh_token.is_some());
        assert_eq!(redeem(&house, &code, json!({})).await.0, 401, "once");
        assert_eq!(house.apple.refused(), [""; 0]);
        // The same state again, with the same cookie: used.
        let again = read(back(&house, &form, Some(&away.cookie)).await).await;
        assert_eq!(super::apple::code(&again), (401, "identity.ticket_invalid"));
    })
    .await;
}

#[tokio::test]
async fn only_allowed_addresses_are_come_back_to() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        for address in [
            "https://evil.example/",
            "https://app.example.com/login",
            "https://app.example.com/login?via=apple&x=1",
            "https://app.example.com/login?via=apple#x",
            "https://app.example.com.evil.example/login?via=apple",
            "https://app.example.com@evil.example/login?via=apple",
            "http://app.example.com/login?via=apple",
            "//app.example.com/login?via=apple",
            "javascript:alert(1)",
            "",
        ] {
            let query = serde_urlencoded::to_string([("return_url", address)]).unwrap();
            let (status, answer) = begin(&house, &query, None).await.err().unwrap();
            assert_eq!(
                (status, &answer["errors"][0]["field"]),
                (400, &json!("return_url")),
                "{address}"
            );
        }
        let same = "https://APP.example.com:443/x/../login?via=apple";
        let query = serde_urlencoded::to_string([("return_url", same)]).unwrap();
        assert!(
            begin(&house, &query, None).await.is_ok(),
            "equal as an address"
        );
        let query =
            serde_urlencoded::to_string([("return_url", RETURN), ("state", &"s".repeat(600))]);
        assert_eq!(
            begin(&house, &query.unwrap(), None).await.err().unwrap().0,
            400
        );

        let query =
            serde_urlencoded::to_string([("return_url", RETURN), ("tenant", "other")]).unwrap();
        house.rig.settings.set(
            Some(OTHER),
            "identity.apple.redirect_uris",
            json!(["https://other.example/"]),
        );
        assert_eq!(
            begin(&house, &query, None).await.err().unwrap().0,
            400,
            "another tenant's"
        );
        let query = serde_urlencoded::to_string([("return_url", RETURN), ("tenant", "no-such")]);
        let nowhere = begin(&house, &query.unwrap(), None).await.err().unwrap();
        assert_eq!(code(&nowhere), (403, "identity.method_off"));
        // Taken from the list while the browser is with Apple.
        let away = away(&house).await;
        house.rig.set(
            "identity.apple.redirect_uris",
            json!(["https://else.example/"]),
        );
        let answer = back(
            &house,
            &form(&house, &away, "001.a", &[]),
            Some(&away.cookie),
        )
        .await;
        assert_eq!(answer.status(), 401);
        house.rig.set("identity.apple.redirect_uris", json!([]));
        let query = serde_urlencoded::to_string([("return_url", RETURN)]).unwrap();
        let off = begin(&house, &query, None).await.err().unwrap();
        assert_eq!(code(&off), (403, "identity.method_off"));
    })
    .await;
}

#[tokio::test]
async fn a_state_belongs_to_one_browser_once_and_for_ten_minutes() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let (mine, theirs) = (away(&house).await, away(&house).await);
        assert_ne!(mine.cookie, theirs.cookie);
        let refused = (401, "identity.ticket_invalid");
        let posted = form(&house, &mine, "001.mallory", &[]);
        // A victim's browser is made to post what the attacker's browser began, and the other way round.
        for cookie in [
            None,
            Some(theirs.cookie.as_str()),
            Some("__Host-portico_ap="),
            Some("portico_ap=x"),
        ] {
            let answer = read(back(&house, &posted, cookie).await).await;
            assert_eq!(code(&answer), refused, "{cookie:?}");
        }
        for state in ["", "made-up", &theirs.state] {
            let mut other = posted.clone();
            other[0].1 = state.to_owned();
            let answer = read(back(&house, &other, Some(&mine.cookie)).await).await;
            assert_eq!(code(&answer), refused, "{state}");
        }
        let nothing = read(back(&house, &[], Some(&mine.cookie)).await).await;
        assert_eq!(code(&nothing), refused);
        assert!(
            pairs(&end(&house, &posted, &mine).await).contains_key("code"),
            "still its owner's"
        );
        house.rig.advance(600);
        let late = read(
            back(
                &house,
                &form(&house, &theirs, "001.t", &[]),
                Some(&theirs.cookie),
            )
            .await,
        )
        .await;
        assert_eq!(code(&late), refused, "late");

        // Two tabs of one browser do not disturb each other.
        let first = away(&house).await;
        let query =
            serde_urlencoded::to_string([("return_url", RETURN), ("state", "mine & yours")]);
        let second = begin(&house, &query.unwrap(), Some(&first.cookie))
            .await
            .unwrap();
        assert_eq!(first.cookie, second.cookie);
        for tab in [&first, &second] {
            let to = end(&house, &form(&house, tab, "001.tabs", &[]), tab).await;
            assert!(pairs(&to).contains_key("code"), "{to}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_goes_wrong_at_apple_is_told_to_the_page() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let error = async |more: &[(&str, &str)]| {
            let away = away(&house).await;
            let mut posted = vec![("state".to_owned(), away.state.clone())];
            posted.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
            pairs(&end(&house, &posted, &away).await)["error"].clone()
        };
        assert_eq!(
            error(&[("error", "user_cancelled_authorize")]).await,
            "cancelled"
        );
        assert_eq!(
            error(&[("error", "server_error&code=x")]).await,
            "apple_refused"
        );
        assert_eq!(error(&[]).await, "apple_token_invalid");
        assert_eq!(error(&[("id_token", "a.b.c")]).await, "apple_token_invalid");
        // The statement of another login, and one that an app got.
        let (mine, other) = (away(&house).await, away(&house).await);
        for (client_id, nonce) in [(SERVICES, &other.nonce), (BUNDLE, &mine.nonce)] {
            let claims = house.apple.claims(client_id, "001.x", nonce);
            let token = house.apple.sign(&claims);
            assert_eq!(
                error(&[("id_token", &token)]).await,
                "apple_token_invalid",
                "{client_id}"
            );
        }
        house.apple.rotate("another");
        house.apple.behave(Behaviour::Broken);
        house.rig.advance(61);
        let away = away(&house).await;
        let to = end(&house, &form(&house, &away, "001.x", &[]), &away).await;
        // A key that is not known, and nobody to ask: this statement cannot be believed.
        assert_eq!(pairs(&to)["error"], "apple_token_invalid");
        let plain = Request::builder().uri(format!("/login/apple/start?return_url={RETURN}"));
        let plain = house
            .rig
            .send(&Principal::anonymous(), plain, Body::empty())
            .await;
        assert_eq!(code(&read(plain).await), (400, "identity.https_required"));
        let large = "x".repeat(70_000);
        let answer = back(&house, &[("state".to_owned(), large)], None).await;
        assert_eq!(answer.status(), 413);
    })
    .await;
}

#[tokio::test]
async fn invitations_and_offers_wait_for_the_exchange() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        house.rig.set("identity.registration.mode", json!("invite"));
        let code_of = async |subject: &str| {
            let away = away(&house).await;
            let to = end(&house, &form(&house, &away, subject, &[]), &away).await;
            pairs(&to)["code"].clone()
        };
        let closed = redeem(&house, &code_of("001.new").await, json!({})).await;
        assert_eq!(code(&closed), (403, "identity.registration_closed"));
        let admin = house.rig.tenant_admin(id::TENANT_DEFAULT).await;
        let invite = json!({"roles": [], "locale": "en"});
        let (_, made) = house.rig.post(&admin, "/invitations", invite).await;
        let invitation = made["link"].as_str().unwrap().rsplit_once('#').unwrap().1;
        let late = code_of("001.new").await;
        house.rig.advance(61);
        let late = redeem(&house, &late, json!({"invitation": invitation})).await;
        assert_eq!(late.0, 401, "a minute");
        let code = code_of("001.new").await;
        let bad = redeem(
            &house,
            &code,
            json!({"invitation": invitation, "locale": "fr"}),
        )
        .await;
        assert_eq!(bad.0, 400, "{}", bad.1);
        let (status, answer) = redeem(&house, &code, json!({"invitation": invitation})).await;
        assert_eq!((status, &answer["status"]), (200, &json!("ok")), "{answer}");

        let mut bert = house.rig.user("bert").await;
        bert.email = Some("001-bert@example.com".to_owned());
        let tx = house.rig.core.db.begin().await.unwrap();
        crate::store::users::put(&tx, &bert).await.unwrap();
        tx.commit().await.unwrap();
        let (status, answer) = redeem(&house, &code_of("001.bert").await, json!({})).await;
        assert_eq!(
            (status, &answer["status"]),
            (200, &json!("link_offered")),
            "{answer}"
        );
        let who = house.rig.principal(&bert).await;
        let link = json!({"provider": "apple", "ticket": answer["ticket"]});
        assert_eq!(house.rig.post(&who, "/me/identities", link).await.0, 201);
        let all = house.identities(&bert).await;
        assert!(all[0].refresh_token.is_some(), "it waited with the rest");
    })
    .await;
}

#[tokio::test]
async fn a_browser_links_to_the_account_that_began_and_to_no_other() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let anna = house.rig.user("anna").await;
        let who = house.rig.principal(&anna).await;
        let begun = async |who: &Principal| {
            let body = json!({"return_url": RETURN, "state": "mine & yours"}).to_string();
            let path = ("POST", "/me/identities/apple/start");
            let answer = request(&house, who, path, None, body).await;
            let cookie = answer.headers().get(header::SET_COOKIE).cloned();
            let cookie = cookie.map(|c| c.to_str().unwrap().split(';').next().unwrap().to_owned());
            let (status, answer) = read(answer).await;
            (status, answer, cookie)
        };
        let mut stale = who.clone();
        stale.fresh_until_s = 0;
        let (status, answer, _) = begun(&stale).await;
        assert_eq!(code(&(status, answer)), (401, "identity.step_up_required"));
        let (status, answer, cookie) = begun(&who).await;
        assert_eq!(status, 200, "{answer}");
        let asked = pairs(answer["url"].as_str().unwrap());
        let away = Away {
            state: asked["state"].clone(),
            nonce: asked["nonce"].clone(),
            cookie: cookie.unwrap(),
            redirect_uri: asked["redirect_uri"].clone(),
        };
        let posted = form(&house, &away, "001.anna", &[]);
        let stranger = read(back(&house, &posted, None).await).await;
        assert_eq!(
            code(&stranger),
            (401, "identity.ticket_invalid"),
            "another browser"
        );
        let to = end(&house, &posted, &away).await;
        assert_eq!(pairs(&to)["linked"], "apple");
        assert!(!pairs(&to).contains_key("code"));
        assert_eq!(house.identities(&anna).await[0].subject, "001.anna");
        assert_eq!(house.user("001.anna", None).await.id, anna.id);

        let bert = house.rig.user("bert").await;
        let who = house.rig.principal(&bert).await;
        let (_, answer, cookie) = begun(&who).await;
        let asked = pairs(answer["url"].as_str().unwrap());
        let away = Away {
            state: asked["state"].clone(),
            nonce: asked["nonce"].clone(),
            cookie: cookie.unwrap(),
            redirect_uri: asked["redirect_uri"].clone(),
        };
        let to = end(&house, &form(&house, &away, "001.anna", &[]), &away).await;
        assert_eq!(pairs(&to)["error"], "identity_taken");
        assert!(house.identities(&bert).await.is_empty());
    })
    .await;
}
