//! The vendors' own examples and ours: whoever doubts a signer runs them (`portico sms vectors`).

use crate::{aliyun, tencent, twilio};

/// One value that a signer must come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vector {
    /// Vendor, example and what of it.
    pub name: &'static str,
    /// True for the vendor's own value, false for one computed with an independent program.
    pub published: bool,
    /// The value.
    pub expected: &'static str,
    /// What this build comes to.
    pub got: String,
}

impl Vector {
    /// True when the signer is right.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.expected == self.got
    }
}

const ALIYUN_ID: &str = "YourAccessKeyId";
const ALIYUN_SECRET: &str = "YourAccessKeySecret";
const TENCENT_ID: &str = "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE";
const TENCENT_SECRET: &str = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE";
const TENCENT_BODY: &[u8] =
    br#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}"#;

/// All vectors with what this build comes to.
#[must_use]
pub fn run() -> Vec<Vector> {
    let mut all = of_aliyun();
    all.extend(of_tencent());
    all.push(computed(
        "twilio basic authentication",
        "Basic QUMwMTIzOnRva2Vu",
        twilio::basic("AC0123", "token"),
    ));
    all
}

fn of_aliyun() -> Vec<Vector> {
    let example = aliyun::sign(
        ALIYUN_ID,
        ALIYUN_SECRET,
        &aliyun::Call {
            host: "ecs.cn-shanghai.aliyuncs.com",
            action: "RunInstances",
            version: "2014-05-26",
            date: "2023-10-26T10:22:32Z",
            nonce: "3156853299f313e23d1673dc12e1703d",
            security_token: None,
            query: &[
                ("RegionId", "cn-shanghai"),
                (
                    "ImageId",
                    "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd",
                ),
            ],
        },
    );
    let ours = aliyun::sign(
        ALIYUN_ID,
        ALIYUN_SECRET,
        &aliyun::Call {
            host: "dysmsapi.aliyuncs.com",
            action: "SendSms",
            version: "2017-05-25",
            date: "2026-01-02T03:04:05Z",
            nonce: "0123456789abcdef0123456789abcdef",
            security_token: None,
            query: &[
                ("TemplateParam", r#"{"code":"048213"}"#),
                ("PhoneNumbers", "+8613812345678"),
                ("SignName", "阿里云"),
                ("TemplateCode", "SMS_153050000"),
            ],
        },
    );
    vec![
        published(
            "aliyun RunInstances canonical request",
            "7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259",
            example.canonical_hash,
        ),
        published(
            "aliyun RunInstances signature",
            "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0",
            example.signature,
        ),
        computed(
            "aliyun SendSms query",
            "PhoneNumbers=%2B8613812345678&SignName=%E9%98%BF%E9%87%8C%E4%BA%91&TemplateCode=SMS_153050000&TemplateParam=%7B%22code%22%3A%22048213%22%7D",
            ours.query,
        ),
        computed(
            "aliyun SendSms canonical request",
            "a54926da9b056ff942bc951a1be865a3294d996e2746b498bf02e51b955fa802",
            ours.canonical_hash,
        ),
        computed(
            "aliyun SendSms signature",
            "e57ba11accdc3be9b4604372e621832b895a3a80d374735eef128db2851932e2",
            ours.signature,
        ),
    ]
}

fn of_tencent() -> Vec<Vector> {
    let example = tencent_call(
        "cvm",
        "cvm.tencentcloudapi.com",
        1_551_113_065,
        TENCENT_BODY,
    );
    let plain = tencent::sign(TENCENT_ID, TENCENT_SECRET, &example);
    let with_action = tencent::sign(
        TENCENT_ID,
        TENCENT_SECRET,
        &tencent::Call {
            action: Some("DescribeInstances"),
            ..example
        },
    );
    let body = tencent::body(
        "+8613812345678",
        "1400006666",
        Some("腾讯云"),
        "1110",
        Some("048213"),
        "",
    );
    let ours = tencent::sign(
        TENCENT_ID,
        TENCENT_SECRET,
        &tencent_call("sms", "sms.tencentcloudapi.com", 1_767_323_045, &body),
    );
    vec![
        published(
            "tencent DescribeInstances body",
            "35e9c5b0e3ae67532d3c9f17ead6c90222632e5b1ff7f6e89887f1398934f064",
            plain.body_hash,
        ),
        published(
            "tencent DescribeInstances canonical request",
            "5ffe6a04c0664d6b969fab9a13bdab201d63ee709638e2749d62a09ca18d7031",
            plain.canonical_hash,
        ),
        published(
            "tencent DescribeInstances signature",
            "72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168",
            plain.signature,
        ),
        computed(
            "tencent DescribeInstances with its action, canonical request",
            "7019a55be8395899b900fb5564e4200d984910f34794a27cb3fb7d10ff6a1e84",
            with_action.canonical_hash,
        ),
        computed(
            "tencent DescribeInstances with its action, signature",
            "644be983de9a8a3f00db8eadaba61467c3b429e2215758ba897b738ca469fd26",
            with_action.signature,
        ),
        computed(
            "tencent SendSms body",
            "0844c5c7bb0b52d24517ce71b397fe6192d7b70e7f60bd87c0514f46c1dae8a0",
            ours.body_hash,
        ),
        computed(
            "tencent SendSms canonical request",
            "5b03c4811b392ac8d4941d9b64c5ec7dac2ca0e702e01e23c7194fdd75901dbf",
            ours.canonical_hash,
        ),
        computed(
            "tencent SendSms signature",
            "efb25bad3ca22e6131ee6280874d224a3d1775f5222c7fbc720a316d427b7e6c",
            ours.signature,
        ),
    ]
}

const fn tencent_call<'a>(
    service: &'a str,
    host: &'a str,
    timestamp: i64,
    body: &'a [u8],
) -> tencent::Call<'a> {
    tencent::Call {
        service,
        host,
        timestamp,
        action: None,
        body,
    }
}

const fn published(name: &'static str, expected: &'static str, got: String) -> Vector {
    Vector {
        name,
        published: true,
        expected,
        got,
    }
}

const fn computed(name: &'static str, expected: &'static str, got: String) -> Vector {
    Vector {
        name,
        published: false,
        expected,
        got,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vector_holds() {
        let all = run();
        assert_eq!(all.iter().filter(|v| v.published).count(), 5);
        for vector in all {
            assert!(vector.holds(), "{}: {}", vector.name, vector.got);
        }
    }
}
