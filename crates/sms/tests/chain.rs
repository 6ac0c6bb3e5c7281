//! The chain against the stand-ins: for every answer of the reference, who is asked next; one code a phone.

use std::sync::Arc;
use std::time::Duration;

use portico_base::{Secret, SystemClock, SystemRandom};
use portico_sms::testing::{Behaviour, StandIn, Vendor, account};
use portico_sms::{
    Alert, Aliyun, Attempt, Breakers, Class, Content, Ending, Endpoint, Limits, Link, Message,
    News, NoticeTemplates, Provider, Run, Sender, Templates, Tencent, Twilio, table,
};

const PHONE: &str = "+8613812345678";
const CODE: &str = "048213";

struct House {
    vendors: [StandIn; 3],
    links: Vec<Link>,
    sender: Sender,
    breakers: Breakers,
    limits: Limits,
}

fn provider(vendor: Vendor, endpoint: Endpoint) -> Arc<dyn Provider> {
    let signs = serde_json::from_str(r#"{"cn": "门廊"}"#).expect("a literal");
    match vendor {
        Vendor::Aliyun => Arc::new(Aliyun {
            endpoint,
            access_key_id: account::ALIYUN_ID.to_owned(),
            access_key_secret: Secret::from(account::ALIYUN_SECRET),
            security_token: None,
            signs,
            templates: serde_json::from_str(r#"{"cn": {"zh-CN": "SMS_1"}}"#).expect("a literal"),
            notices: notices("SMS_901"),
        }),
        Vendor::Tencent => Arc::new(Tencent {
            endpoint,
            secret_id: account::TENCENT_ID.to_owned(),
            secret_key: Secret::from(account::TENCENT_SECRET),
            sdk_app_id: account::TENCENT_APP.to_owned(),
            region: "ap-guangzhou".to_owned(),
            signs,
            templates: serde_json::from_str(r#"{"cn": {"zh-CN": "1110"}}"#).expect("a literal"),
            notices: notices("9001"),
        }),
        Vendor::Twilio => Arc::new(Twilio {
            endpoint,
            account_sid: account::TWILIO_SID.to_owned(),
            api_key: None,
            secret: Secret::from(account::TWILIO_TOKEN),
            from: Some("+15005550006".to_owned()),
            messaging_service: None,
            texts: Templates::default(),
            notices: NoticeTemplates::default(),
        }),
    }
}

/// A template for one notice.
fn notices(template: &str) -> NoticeTemplates {
    let of = serde_json::json!({"password_changed": {"cn": {"zh-CN": template}}});
    serde_json::from_value(of).expect("a literal")
}

impl House {
    async fn new() -> Self {
        let start = |vendor| StandIn::start(vendor, Arc::new(SystemClock));
        let vendors = [
            start(Vendor::Aliyun).await.expect("a port"),
            start(Vendor::Tencent).await.expect("a port"),
            start(Vendor::Twilio).await.expect("a port"),
        ];
        let links = Vendor::ALL
            .into_iter()
            .zip(&vendors)
            .map(|(vendor, stand_in)| link(provider(vendor, stand_in.endpoint())))
            .collect();
        Self {
            vendors,
            links,
            sender: Sender::new(Duration::from_secs(1)).expect("a client"),
            breakers: Breakers::default(),
            // Short, so that a vendor that hangs does not hold the test up; nothing is asserted on it.
            limits: Limits {
                budget: Duration::from_secs(6),
                attempt: Duration::from_millis(400),
            },
        }
    }

    async fn send(&self) -> (Ending, Vec<Attempt>) {
        self.send_through(self.links.clone(), self.limits).await
    }

    async fn send_through(&self, links: Vec<Link>, limits: Limits) -> (Ending, Vec<Attempt>) {
        let code = Content::Code(Secret::from(CODE));
        self.say(code, links, limits).await
    }

    /// Sends a notice through all of the chain.
    async fn tell(&self, name: &str) -> (Ending, Vec<Attempt>) {
        let news = News {
            name: name.to_owned(),
            text: "The password was changed.".to_owned(),
        };
        let links = self.links.clone();
        self.say(Content::Notice(news), links, self.limits).await
    }

    async fn say(
        &self,
        content: Content,
        links: Vec<Link>,
        limits: Limits,
    ) -> (Ending, Vec<Attempt>) {
        let message = Message {
            id: "send-1".to_owned(),
            phone: PHONE.to_owned(),
            content,
            locale: "zh-CN".to_owned(),
        };
        let mut run = Run::new(links, limits);
        let mut attempts = Vec::new();
        while let Some(attempt) = run
            .step(
                &message,
                &self.sender,
                &self.breakers,
                &SystemClock,
                &SystemRandom,
            )
            .await
        {
            attempts.push(attempt);
        }
        (run.ending(), attempts)
    }

    /// How many requests each vendor had so far.
    fn asked(&self) -> [usize; 3] {
        self.vendors.each_ref().map(|vendor| vendor.seen().len())
    }

    fn behave(&self, vendor: usize, behaviour: Behaviour) {
        self.vendors[vendor].behave(behaviour);
    }

    /// Every request was signed well, and carried the one code to the one phone.
    fn one_code(&self) {
        for vendor in &self.vendors {
            for seen in vendor.seen() {
                assert_eq!(seen.refused, None);
                assert_eq!((seen.phone.as_str(), seen.code.as_str()), (PHONE, CODE));
            }
        }
    }
}

fn link(provider: Arc<dyn Provider>) -> Link {
    Link {
        provider,
        countries: Vec::new(),
        cost_micro: 45_000,
    }
}

fn classes(attempts: &[Attempt]) -> Vec<Class> {
    attempts.iter().map(|a| a.verdict.class).collect()
}

fn example(pattern: &str) -> String {
    match pattern.strip_suffix(".*") {
        Some(family) => format!("{family}.Example"),
        None => pattern.trim_end_matches('*').to_owned(),
    }
}

#[tokio::test]
async fn the_first_that_takes_it_is_the_last_that_is_asked() {
    let house = House::new().await;
    let (ending, attempts) = house.send().await;
    assert_eq!(ending, Ending::Sent);
    assert_eq!(classes(&attempts), [Class::Sent]);
    assert_eq!(house.asked(), [1, 0, 0]);
    let first = &attempts[0];
    assert_eq!(
        (first.provider, first.number, first.cost_micro),
        ("aliyun", 1, 45_000)
    );
    assert!(first.verdict.receipt.is_some());
    house.one_code();
}

/// P§4 whole: for every row of every vendor, what the chain does with its code.
#[tokio::test]
async fn the_table_of_next_steps() {
    for (i, table) in table::TABLES.iter().enumerate() {
        for (pattern, class) in table.rows {
            let house = House::new().await;
            house.behave(i, Behaviour::Code(example(pattern)));
            let (ending, attempts) = house
                .send_through(house.links[i..].to_vec(), house.limits)
                .await;
            let row = format!("{} {pattern}", table.provider);
            assert_eq!(attempts[0].verdict.class, *class, "{row}");
            let is_last = i + 1 == house.links.len();
            let mut asked = [0; 3];
            asked[i] = 1;
            let goes_on = !matches!(class, Class::Stop | Class::StopAlert) && !is_last;
            if goes_on {
                asked[i + 1] = 1;
            }
            assert_eq!(house.asked(), asked, "{row}");
            let expected = match class {
                Class::Stop | Class::StopAlert => Ending::Stopped,
                _ if goes_on => Ending::Sent,
                Class::Ambiguous => Ending::Ambiguous,
                _ => Ending::Unavailable,
            };
            assert_eq!(ending, expected, "{row}");
            let alert = (*class == Class::NextAlert).then_some(Alert::Misconfigured);
            assert_eq!(attempts[0].alert, alert, "{row}");
            house.one_code();
        }
    }
}

#[tokio::test]
async fn an_error_that_nobody_knows_stops_and_is_told() {
    for vendor in 0..3 {
        let house = House::new().await;
        let code = if vendor == 2 { "29999" } else { "Some.NewCode" };
        house.behave(vendor, Behaviour::Code(code.to_owned()));
        let links = house.links[vendor..].to_vec();
        let (ending, attempts) = house.send_through(links, house.limits).await;
        assert_eq!(ending, Ending::Stopped);
        assert_eq!(attempts.len(), 1);
        assert_eq!(attempts[0].alert, Some(Alert::Unknown));
    }
}

#[tokio::test]
async fn a_fault_of_the_vendors_machines_goes_on() {
    let house = House::new().await;
    house.behave(0, Behaviour::Status(502));
    house.behave(1, Behaviour::Status(503));
    let (ending, attempts) = house.send().await;
    assert_eq!(ending, Ending::Sent);
    assert_eq!(classes(&attempts), [Class::Next, Class::Next, Class::Sent]);
    house.one_code();
}

#[tokio::test]
async fn no_connection_means_that_the_phone_was_not_touched() {
    let house = House::new().await;
    // Nobody listens any more.
    let gone = {
        let stand_in = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", stand_in.local_addr().unwrap())
    };
    let refused = provider(Vendor::Aliyun, Endpoint::parse(&gone).unwrap());
    // Reset before a byte of the request: the handshake that comes first breaks.
    house.behave(1, Behaviour::ResetBefore);
    let broken = provider(Vendor::Tencent, house.vendors[1].endpoint_tls());
    let links = vec![link(refused), link(broken), house.links[2].clone()];
    let (ending, attempts) = house.send_through(links, house.limits).await;
    assert_eq!(classes(&attempts), [Class::Next, Class::Next, Class::Sent]);
    assert_eq!(attempts[0].verdict.code, "connect_failed");
    assert_eq!(ending, Ending::Sent);
    assert_eq!(house.asked(), [0, 0, 1]);
    house.one_code();
}

#[tokio::test]
async fn after_no_answer_at_most_one_more_is_asked_with_the_same_code() {
    for silent in [
        Behaviour::Hang,
        Behaviour::ResetAfter,
        Behaviour::CutOff,
        Behaviour::Huge,
        Behaviour::Status(200),
    ] {
        let house = House::new().await;
        house.behave(0, silent.clone());
        let (ending, attempts) = house.send().await;
        assert_eq!(
            classes(&attempts),
            [Class::Ambiguous, Class::Sent],
            "{silent:?}"
        );
        assert_eq!(ending, Ending::Sent);
        assert_eq!(
            attempts[0].cost_micro, 45_000,
            "perhaps delivered, perhaps paid for"
        );
        house.one_code();

        let house = House::new().await;
        house.behave(0, silent.clone());
        house.behave(
            1,
            Behaviour::Code("AuthFailure.SecretIdNotFound".to_owned()),
        );
        let (ending, attempts) = house.send().await;
        assert_eq!(attempts.len(), 2, "{silent:?}: not a third");
        assert_eq!(ending, Ending::Ambiguous);
        assert_eq!(house.asked(), [1, 1, 0]);
        house.one_code();

        let house = House::new().await;
        house.behave(0, Behaviour::Code("isv.OUT_OF_SERVICE".to_owned()));
        house.behave(1, silent.clone());
        house.behave(2, silent.clone());
        let (ending, attempts) = house.send().await;
        assert_eq!(
            classes(&attempts),
            [Class::Next, Class::Ambiguous, Class::Ambiguous]
        );
        assert_eq!(ending, Ending::Ambiguous);
        house.one_code();
    }
}

#[tokio::test]
async fn a_send_has_a_budget() {
    let house = House::new().await;
    house.behave(0, Behaviour::Hang);
    let limits = Limits {
        budget: Duration::from_millis(300),
        attempt: Duration::from_secs(60),
    };
    let (ending, attempts) = house.send_through(house.links.clone(), limits).await;
    assert_eq!(
        classes(&attempts),
        [Class::Ambiguous],
        "the time is used up"
    );
    assert_eq!(ending, Ending::Ambiguous);
    assert_eq!(house.asked(), [1, 0, 0]);
}

#[tokio::test]
async fn an_open_breaker_spares_the_vendor() {
    let house = House::new().await;
    house.behave(0, Behaviour::Code("isp.SYSTEM_ERROR".to_owned()));
    for n in 1..=5 {
        let (_, attempts) = house.send().await;
        let alert = (n == 5).then_some(Alert::Opened);
        assert_eq!(attempts[0].alert, alert, "send {n}");
    }
    let (ending, attempts) = house.send().await;
    assert_eq!(ending, Ending::Sent);
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].provider, "tencent");
    assert_eq!(house.asked(), [5, 6, 0]);
}

#[tokio::test]
async fn a_chain_asks_only_who_serves_the_number() {
    let house = House::new().await;
    let mut links = house.links.clone();
    links[0].countries = vec!["+1".to_owned(), "+852".to_owned()];
    links[1].countries = vec!["+86".to_owned()];
    let (_, attempts) = house.send_through(links, house.limits).await;
    assert_eq!(attempts[0].provider, "tencent");

    let (ending, attempts) = house.send_through(Vec::new(), house.limits).await;
    assert_eq!((ending, attempts.len()), (Ending::Unavailable, 0));
}

#[tokio::test]
async fn a_notice_goes_by_templates_of_its_own_and_without_variables() {
    let house = House::new().await;
    for (at, wanted) in ["SMS_901", "9001", "The password was changed."]
        .into_iter()
        .enumerate()
    {
        let (ending, attempts) = house.tell("password_changed").await;
        assert_eq!(ending, Ending::Sent, "{attempts:?}");
        let seen = house.vendors[at].seen();
        assert_eq!(seen.len(), 1, "asked when those before are down: {seen:?}");
        assert_eq!(seen[0].refused, None);
        assert_eq!(seen[0].notice.as_deref(), Some(wanted));
        assert_eq!((&*seen[0].phone, &*seen[0].code), (PHONE, ""));
        // The next one is for whoever is asked next.
        house.behave(at, Behaviour::Status(503));
    }
    // Who has no template for it is not asked: a code's template must not carry news.
    let house = House::new().await;
    let (ending, _) = house.tell("new_device").await;
    assert_eq!(ending, Ending::Sent);
    assert_eq!(house.asked(), [0, 0, 1]);
}

#[tokio::test]
async fn wrong_credentials_are_refused_by_every_stand_in() {
    let house = House::new().await;
    let [a, t, w] = house.vendors.each_ref().map(StandIn::endpoint);
    let mut aliyun = Aliyun {
        endpoint: a,
        access_key_id: account::ALIYUN_ID.to_owned(),
        access_key_secret: Secret::from("wrong"),
        security_token: None,
        signs: serde_json::from_str(r#"{"cn": "门廊"}"#).unwrap(),
        templates: serde_json::from_str(r#"{"cn": {"en": "SMS_1"}}"#).unwrap(),
        notices: NoticeTemplates::default(),
    };
    let tencent = Tencent {
        endpoint: t,
        secret_id: account::TENCENT_ID.to_owned(),
        secret_key: Secret::from("wrong"),
        sdk_app_id: account::TENCENT_APP.to_owned(),
        region: "ap-guangzhou".to_owned(),
        signs: aliyun.signs.clone(),
        templates: aliyun.templates.clone(),
        notices: NoticeTemplates::default(),
    };
    let twilio = Twilio {
        endpoint: w,
        account_sid: account::TWILIO_SID.to_owned(),
        api_key: None,
        secret: Secret::from("wrong"),
        from: Some("+15005550006".to_owned()),
        messaging_service: None,
        texts: aliyun.templates.clone(),
        notices: NoticeTemplates::default(),
    };
    let links = vec![
        link(Arc::new(aliyun.clone())),
        link(Arc::new(tencent)),
        link(Arc::new(twilio)),
    ];
    let (ending, attempts) = house.send_through(links, house.limits).await;
    assert_eq!(classes(&attempts), [Class::NextAlert; 3]);
    assert_eq!(ending, Ending::Unavailable);
    assert_eq!(attempts[0].verdict.code, "SignatureDoesNotMatch");
    assert_eq!(attempts[1].verdict.code, "AuthFailure.SignatureFailure");
    assert_eq!(attempts[2].verdict.code, "20003");

    aliyun.access_key_id = "another".to_owned();
    let (_, attempts) = house
        .send_through(vec![link(Arc::new(aliyun))], house.limits)
        .await;
    assert_eq!(attempts[0].verdict.code, "InvalidAccessKeyId.NotFound");
}
