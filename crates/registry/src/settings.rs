//! Settings of the registry, with the values that are read often kept ready.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use chrono::Duration;
use ipnet::IpNet;
use portico_contract::settings::{Declaration, Key, Kind, SettingFault, Settings};
use uuid::Uuid;

use crate::domain::life::Policy;
use crate::domain::registration::Defaults;

const fn seconds(
    key: &'static str,
    min: i64,
    max: i64,
    default: &'static str,
    title: &'static str,
    title_zh: &'static str,
) -> Key<i64> {
    Key::new(Declaration::new(key, Kind::Integer { min, max }, default, title, title_zh).unit("s"))
}

const HEARTBEAT_S: Key<i64> = seconds(
    "registry.heartbeat_s",
    1,
    300,
    "30",
    "seconds between heartbeats, unless a registration says otherwise",
    "心跳间隔（秒），注册时未指定则使用",
);
const INACTIVE_S: Key<i64> = seconds(
    "registry.inactive_s",
    10,
    86_400,
    "300",
    "without a heartbeat for so long an instance is inactive",
    "多久没有心跳视为不活跃",
);
const REMOVE_S: Key<i64> = seconds(
    "registry.remove_s",
    60,
    2_592_000,
    "86400",
    "an instance that is inactive for so long is removed",
    "不活跃多久后移除",
);
const DRAIN_S: Key<i64> = seconds(
    "registry.drain_s",
    0,
    3_600,
    "30",
    "time that a draining instance has to finish its requests",
    "排空时留给现有请求的时间",
);
const NETWORKS: Key<Vec<String>> = Key::new(Declaration::new(
    "registry.allowed_networks",
    Kind::TextList { max: 256 },
    r#"["127.0.0.0/8","::1/128","10.0.0.0/8","172.16.0.0/12","192.168.0.0/16","fc00::/7"]"#,
    "networks in which instances may live",
    "允许实例所在的网络",
));
const CHECK_INTERVAL_S: Key<i64> = seconds(
    "registry.check.interval_s",
    1,
    300,
    "10",
    "seconds between two health checks",
    "健康检查间隔（秒）",
);
const CHECK_TIMEOUT_MS: Key<i64> = Key::new(
    Declaration::new(
        "registry.check.timeout_ms",
        Kind::Integer {
            min: 10,
            max: 60_000,
        },
        "2000",
        "time that a health check may take",
        "健康检查超时",
    )
    .unit("ms"),
);
const CHECK_FALL: Key<i64> = Key::new(Declaration::new(
    "registry.check.fall",
    Kind::Integer { min: 1, max: 20 },
    "2",
    "failures in a row that take an instance out",
    "连续失败多少次后摘除",
));
const CHECK_RISE: Key<i64> = Key::new(Declaration::new(
    "registry.check.rise",
    Kind::Integer { min: 1, max: 20 },
    "2",
    "successes in a row that bring an instance back",
    "连续成功多少次后恢复",
));
const PROBE: Key<bool> = Key::new(Declaration::new(
    "registry.probe_on_register",
    Kind::Bool,
    "false",
    "connect to an instance once before it gets traffic, even when it has no health check",
    "即使没有健康检查，也先连接一次再接流量",
));
/// Whether anonymous callers may use the Consul-compatible loopback listener (RG-46).
pub(crate) const ANONYMOUS: Key<String> = Key::new(Declaration::new(
    "registry.anonymous",
    Kind::Enum(&["loopback", "off"]),
    "\"loopback\"",
    "whether the Consul-compatible listener serves loopback callers without a token",
    "Consul 兼容接口是否允许本机无令牌访问",
));
/// Longest value of the key-value store.
pub(crate) const KV_MAX_VALUE: Key<i64> = Key::new(
    Declaration::new(
        "kv.max_value_bytes",
        Kind::Integer {
            min: 1,
            max: 524_288,
        },
        "524288",
        "longest value of the key-value store",
        "键值存储单个值的上限",
    )
    .unit("bytes"),
);
/// Most keys of a tenant.
pub(crate) const KV_MAX_KEYS: Key<i64> = Key::new(Declaration::new(
    "kv.max_keys",
    Kind::Integer {
        min: 1,
        max: 100_000_000,
    },
    "100000",
    "most keys of a tenant in the key-value store",
    "每个租户的键数量上限",
));
/// Most bytes of a tenant.
pub(crate) const KV_MAX_BYTES: Key<i64> = Key::new(
    Declaration::new(
        "kv.max_bytes",
        Kind::Integer {
            min: 1,
            max: 1 << 40,
        },
        "67108864",
        "most bytes of a tenant in the key-value store",
        "每个租户的键值总字节上限",
    )
    .unit("bytes"),
);

/// All declared settings.
pub(crate) const DECLARATIONS: &[Declaration] = &[
    HEARTBEAT_S.declaration,
    INACTIVE_S.declaration,
    REMOVE_S.declaration,
    DRAIN_S.declaration,
    NETWORKS.declaration,
    CHECK_INTERVAL_S.declaration,
    CHECK_TIMEOUT_MS.declaration,
    CHECK_FALL.declaration,
    CHECK_RISE.declaration,
    PROBE.declaration,
    ANONYMOUS.declaration,
    KV_MAX_VALUE.declaration,
    KV_MAX_KEYS.declaration,
    KV_MAX_BYTES.declaration,
];

/// What the declarations cannot say one by one.
pub(crate) fn check(settings: &Settings, _tenant: Uuid) -> Vec<SettingFault> {
    let mut faults = Vec::new();
    let (inactive, remove) = (settings.system(&INACTIVE_S), settings.system(&REMOVE_S));
    if inactive > remove {
        faults.push(SettingFault {
            key: INACTIVE_S.declaration.key,
            message: format!("must not be above registry.remove_s, which is {remove}"),
        });
    }
    let wrong = |text: &&String| text.parse::<IpNet>().is_err() && text.parse::<IpAddr>().is_err();
    if let Some(text) = settings.system(&NETWORKS).iter().find(wrong) {
        faults.push(SettingFault {
            key: NETWORKS.declaration.key,
            message: format!("{text:?} is not a network"),
        });
    }
    faults
}

/// The values that are read on every request or judgement.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    pub policy: Policy,
    pub drain: Duration,
    pub defaults: Defaults,
    pub probe_on_register: bool,
    pub networks: Vec<IpNet>,
}

impl Values {
    fn read(settings: &Settings) -> Self {
        let small = |key: &Key<i64>, or: u32| u32::try_from(settings.system(key)).unwrap_or(or);
        let count = |key: &Key<i64>| u8::try_from(settings.system(key)).unwrap_or(2);
        Self {
            policy: Policy {
                inactive: Duration::seconds(settings.system(&INACTIVE_S)),
                remove: Duration::seconds(settings.system(&REMOVE_S)),
            },
            drain: Duration::seconds(settings.system(&DRAIN_S)),
            defaults: Defaults {
                heartbeat_s: small(&HEARTBEAT_S, 30),
                check_interval_ms: u64::from(small(&CHECK_INTERVAL_S, 10)) * 1_000,
                check_timeout_ms: u64::from(small(&CHECK_TIMEOUT_MS, 2_000)),
                fall: count(&CHECK_FALL),
                rise: count(&CHECK_RISE),
            },
            probe_on_register: settings.system(&PROBE),
            networks: networks(&settings.system(&NETWORKS)),
        }
    }
}

/// Networks that cannot be read are left out, which only allows less.
fn networks(texts: &[String]) -> Vec<IpNet> {
    texts
        .iter()
        .filter_map(|text| {
            let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            if parsed.is_none() {
                tracing::warn!(value = %text, "registry.allowed_networks holds something that is not a network");
            }
            parsed
        })
        .collect()
}

/// The present values; follows changes of the settings.
#[derive(Clone)]
pub(crate) struct Tunables(Arc<ArcSwap<Values>>);

impl Tunables {
    pub(crate) fn follow(settings: &Settings) -> Self {
        let cell = Arc::new(ArcSwap::from_pointee(Values::read(settings)));
        let (sink, source) = (Arc::clone(&cell), settings.clone());
        settings.subscribe(Arc::new(move |changed| {
            if changed.iter().any(|key| key.starts_with("registry.")) {
                sink.store(Arc::new(Values::read(&source)));
            }
        }));
        Self(cell)
    }

    pub(crate) fn get(&self) -> arc_swap::Guard<Arc<Values>> {
        self.0.load()
    }
}

#[cfg(test)]
mod tests {
    use portico_contract::address::DEFAULT_NETWORKS;

    use super::*;

    #[test]
    fn defaults_fit_their_declarations_and_types() {
        for declaration in DECLARATIONS {
            let value = serde_json::from_str(declaration.default).expect(declaration.key);
            declaration.check(&value).expect(declaration.key);
            assert!(!declaration.title.is_empty() && !declaration.title_zh.is_empty());
        }
        let system = portico_base::id::TENANT_SYSTEM;
        assert_eq!(check(&Settings::defaults(), system), []);
        let values = Values::read(&Settings::defaults());
        assert_eq!(values.defaults.heartbeat_s, 30);
        assert_eq!(values.networks.len(), DEFAULT_NETWORKS.len());
        let settings = Settings::defaults();
        assert_eq!(settings.system(&ANONYMOUS), "loopback");
        assert_eq!(settings.system(&KV_MAX_VALUE), 524_288);
        assert_eq!(
            (
                settings.system(&KV_MAX_KEYS),
                settings.system(&KV_MAX_BYTES)
            ),
            (100_000, 67_108_864)
        );
        let texts: Vec<String> = DEFAULT_NETWORKS.iter().map(|&t| t.to_owned()).collect();
        assert_eq!(settings.system(&NETWORKS), texts);
        assert_eq!(
            networks(&["10.0.0.1".to_owned(), "nonsense".to_owned()]).len(),
            1
        );
    }
}
