//! The gateway's settings that the pipeline reads, with their defaults (§6 of the specification).

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use portico_contract::settings::{Declaration, Key, Kind, Settings};

use crate::balance::BreakerSettings;
use crate::cache::{CacheConfig, Honour, WarmTarget};
use crate::objects::doc::PolicyName;
use crate::upstream::PoolLimits;

const fn whole(
    key: &'static str,
    default: &'static str,
    min: i64,
    max: i64,
    title: &'static str,
    zh: &'static str,
) -> Declaration {
    Declaration::new(key, Kind::Integer { min, max }, default, title, zh)
}

macro_rules! keys {
    ($($name:ident: $type:ty = $declaration:expr;)*) => {
        $(pub const $name: Key<$type> = Key::new($declaration);)*
        /// Everything declared here.
        pub const DECLARATIONS: &[Declaration] = &[$($name.declaration),*];
    };
}

keys! {
    CONNECT_MS: u64 = whole("gateway.timeouts.connect_ms", "2000", 1, 60_000, "time to connect to an instance", "连接实例的超时").unit("ms");
    FIRST_BYTE_MS: u64 = whole("gateway.timeouts.first_byte_ms", "30000", 1, 3_600_000, "time to the first byte of an answer", "首字节超时").unit("ms");
    BETWEEN_BYTES_MS: u64 = whole("gateway.timeouts.between_bytes_ms", "60000", 1, 3_600_000, "time between two bytes of an answer", "字节间隔超时").unit("ms");
    IDLE_STREAM_S: u64 = whole("gateway.timeouts.idle_stream_s", "75", 1, 86_400, "idle time of WebSocket and event streams", "流空闲超时").unit("s");
    ATTEMPTS: u8 = whole("gateway.retries.attempts", "2", 1, 3, "attempts at instances in total", "总尝试次数");
    BUDGET_PERCENT: u32 = whole("gateway.retries.budget_percent", "20", 0, 100, "share of requests that may be retried", "重试预算百分比").unit("%");
    BACKOFF_MS: u32 = whole("gateway.retries.backoff_ms", "25", 1, 250, "first wait before a retry", "重试退避").unit("ms");
    POOL_IDLE: usize = whole("gateway.pool.idle_per_instance", "64", 0, 10_000, "idle connections kept for an instance and worker", "每实例空闲连接数");
    POOL_IDLE_S: u64 = whole("gateway.pool.idle_s", "4", 1, 3_600, "time that idle connections are kept", "空闲连接保持时间").unit("s");
    POOL_MAX: usize = whole("gateway.pool.max_per_instance", "1024", 1, 100_000, "connections to an instance", "每实例最大连接数");
    POOL_QUEUE: usize = whole("gateway.pool.queue", "100", 0, 100_000, "requests that may wait for a connection", "连接等待队列");
    POOL_QUEUE_MS: u64 = whole("gateway.pool.queue_ms", "1000", 1, 60_000, "time that a request waits for a connection", "连接等待时间").unit("ms");
    POLICY: PolicyName = Declaration::new(
        "gateway.lb.policy",
        Kind::Enum(&["adaptive", "round_robin", "weighted", "least_in_flight", "random2", "hash", "first"]),
        "\"adaptive\"", "how instances are chosen", "负载均衡策略",
    );
    SLOW_START_S: u64 = whole("gateway.lb.slow_start_s", "15", 0, 3_600, "slow start of new instances", "慢启动时间").unit("s");
    BREAKER_FAILURES: u32 = whole("gateway.breaker.failures", "5", 1, 1_000, "failures in a row that open a breaker", "熔断连续失败数");
    BREAKER_OPEN_S: u64 = whole("gateway.breaker.open_s", "30", 1, 300, "first time that a breaker stays open", "熔断打开时间").unit("s");
    BREAKER_RATIO: f64 = Declaration::new("gateway.breaker.ratio", Kind::Decimal { min: 0.01, max: 1.0 }, "0.5", "share of failures that opens a breaker", "熔断失败比例");
    BREAKER_MIN: u64 = whole("gateway.breaker.min_requests", "20", 1, 100_000, "requests from which the share counts", "熔断最小请求数");
    BREAKER_WINDOW_S: u64 = whole("gateway.breaker.window_s", "10", 1, 300, "window of the share", "熔断统计窗口").unit("s");
    ADDRESS_PER_S: f64 = Declaration::new("gateway.limit.address_per_s", Kind::Decimal { min: 0.0, max: 1e6 }, "100", "requests a second of one address; 0 for no limit", "每地址每秒请求数");
    USER_PER_S: f64 = Declaration::new("gateway.limit.user_per_s", Kind::Decimal { min: 0.0, max: 1e6 }, "50", "requests a second of one user; 0 for no limit", "每用户每秒请求数");
    AUTH_PER_S: f64 = Declaration::new("gateway.limit.auth_per_s", Kind::Decimal { min: 0.0, max: 1e6 }, "10", "anonymous requests a second of one address to auth hosts", "匿名认证每秒请求数");
    USER_CONCURRENT: u32 = whole("gateway.limit.user_concurrent", "50", 0, 100_000, "requests of one user at the same time; 0 for no limit", "每用户并发请求数");
    LIMIT_MODE: String = Declaration::new("gateway.limit.mode", Kind::Enum(&["local", "shared"]), "\"local\"", "where limits are counted", "限流计数方式");
    LIMIT_LOOPBACK: bool = Declaration::new("gateway.limit.loopback", Kind::Bool, "false", "the default limits hold for loopback too", "本机也限流");
    BODY_MAX: u64 = whole("gateway.body_max_bytes", "16777216", 0, 1 << 50, "longest request body; 0 for no limit", "请求体上限").unit("bytes");
    CACHE_ENABLED: bool = Declaration::new("gateway.cache.enabled", Kind::Bool, "true", "cache answers", "启用缓存");
    CACHE_HEURISTIC: bool = Declaration::new("gateway.cache.heuristic", Kind::Bool, "false", "guess lifetimes of answers that say nothing", "启发式缓存");
    CACHE_L1_ENTRIES: u64 = whole("gateway.cache.l1_entries", "1000", 0, 10_000_000, "answers in memory", "内存缓存条数");
    CACHE_L1_BYTES: u64 = whole("gateway.cache.l1_bytes", "67108864", 0, 1 << 40, "bytes of answers in memory", "内存缓存字节数").unit("bytes");
    CACHE_L1_TTL_S: u64 = whole("gateway.cache.l1_ttl_s", "300", 1, 86_400, "time that an answer stays in memory without a look at the shared tier", "内存缓存时间").unit("s");
    CACHE_L2_BYTES: u64 = whole("gateway.cache.l2_bytes", "1073741824", 0, 1 << 50, "bytes of answers in Redis, of all replicas together", "共享缓存字节数").unit("bytes");
    CACHE_STALE_S: u64 = whole("gateway.cache.stale_s", "86400", 0, 2_592_000, "longest use of an answer after its time, when its service fails", "过期缓存保留时间").unit("s");
    CACHE_HONOUR: String = Declaration::new("gateway.cache.honour_request_no_cache", Kind::Enum(&["nobody", "trusted", "everyone"]), "\"trusted\"", "whose requests may ask for a fresh answer, where no rule says so", "允许谁绕过缓存");
    CACHE_WARMUP: Vec<WarmTarget> = Declaration::new("gateway.cache.warmup", Kind::Json, "[]", "addresses that are fetched before anybody asks: URLs or paths, or objects with url and tenant", "缓存预热地址");
    ACCESS_LOG: String = Declaration::new(
        "gateway.access_log",
        Kind::Enum(&["all", "sampled", "errors", "off"]),
        "\"sampled\"",
        "which requests get a line in the access log",
        "访问日志模式",
    );
    BAGGAGE: Vec<String> = Declaration::new("gateway.trace.baggage", Kind::Json, "[]", "keys of W3C baggage that are passed on to services; none passes nothing", "允许转发的 baggage 键");
    CONSOLE_NETWORKS: Vec<String> = Declaration::new("console.allow_cidrs", Kind::TextList { max: 100 }, "[]", "networks that administration is served to, where it has no listener of its own; none is everybody", "允许访问管理功能的网段");
    MAINTENANCE: Maintenance = Declaration::new(
        "gateway.maintenance", Kind::Json, "{\"on\":false}", "answer 503 to everybody", "维护模式",
    );
}

/// `gateway.maintenance`.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(default)]
pub struct Maintenance {
    pub on: bool,
    pub message: String,
    /// RFC 3339; the end that clients are told.
    pub until: Option<portico_base::Timestamp>,
    /// Whoever holds `gateway:route:write` passes.
    pub allow_admin: bool,
}

/// The values in use, read once for each snapshot.
#[derive(Debug, Clone)]
pub struct Values {
    pub connect: Duration,
    pub first_byte: Duration,
    pub between_bytes: Duration,
    pub idle_stream: Duration,
    pub attempts: u8,
    pub budget_percent: u32,
    pub backoff_ms: u32,
    pub policy: PolicyName,
    pub slow_start_ms: u64,
    pub breaker: BreakerSettings,
    pub address_per_s: f64,
    pub user_per_s: f64,
    pub auth_per_s: f64,
    pub user_concurrent: u32,
    pub limits_shared: bool,
    pub limit_loopback: bool,
    pub body_max: u64,
    pub cache: bool,
    pub cache_heuristic: bool,
    pub cache_honour: Honour,
    /// Keys of baggage that are passed on.
    pub baggage: Box<[String]>,
    pub maintenance: Maintenance,
    /// Networks that administration is served to; absent for all. One that cannot be read lets nobody in.
    pub console_networks: Option<Box<[IpNet]>>,
}

impl Values {
    #[must_use]
    pub fn read(settings: &Settings) -> Self {
        let ms = |key: &Key<u64>| Duration::from_millis(settings.system(key));
        Self {
            connect: ms(&CONNECT_MS),
            first_byte: ms(&FIRST_BYTE_MS),
            between_bytes: ms(&BETWEEN_BYTES_MS),
            idle_stream: Duration::from_secs(settings.system(&IDLE_STREAM_S)),
            attempts: settings.system(&ATTEMPTS),
            budget_percent: settings.system(&BUDGET_PERCENT),
            backoff_ms: settings.system(&BACKOFF_MS),
            policy: settings.system(&POLICY),
            slow_start_ms: settings.system(&SLOW_START_S) * 1000,
            breaker: BreakerSettings {
                failures: settings.system(&BREAKER_FAILURES),
                ratio: settings.system(&BREAKER_RATIO),
                min_requests: settings.system(&BREAKER_MIN),
                window_ms: settings.system(&BREAKER_WINDOW_S) * 1000,
                open_ms: settings.system(&BREAKER_OPEN_S) * 1000,
            },
            address_per_s: settings.system(&ADDRESS_PER_S),
            user_per_s: settings.system(&USER_PER_S),
            auth_per_s: settings.system(&AUTH_PER_S),
            user_concurrent: settings.system(&USER_CONCURRENT),
            limits_shared: settings.system(&LIMIT_MODE) == "shared",
            limit_loopback: settings.system(&LIMIT_LOOPBACK),
            body_max: settings.system(&BODY_MAX),
            cache: settings.system(&CACHE_ENABLED),
            cache_heuristic: settings.system(&CACHE_HEURISTIC),
            cache_honour: match &*settings.system(&CACHE_HONOUR) {
                "nobody" => Honour::Nobody,
                "everyone" => Honour::Everyone,
                _ => Honour::Trusted,
            },
            baggage: settings.system(&BAGGAGE).into(),
            maintenance: settings.system(&MAINTENANCE),
            console_networks: networks(&settings.system(&CONSOLE_NETWORKS)),
        }
    }
}

/// Networks, and single addresses as such.
fn networks(texts: &[String]) -> Option<Box<[IpNet]>> {
    let read = |text: &String| {
        let found = text
            .parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        found
            .inspect_err(|_| tracing::error!(text, "an entry of console.allow_cidrs is no network"))
            .ok()
    };
    (!texts.is_empty()).then(|| texts.iter().filter_map(read).collect())
}

/// The limits of connection pools; each worker takes them over when settings change.
#[must_use]
pub fn pool_limits(settings: &Settings) -> PoolLimits {
    PoolLimits {
        idle: settings.system(&POOL_IDLE),
        idle_life: Duration::from_secs(settings.system(&POOL_IDLE_S)),
        connections: settings.system(&POOL_MAX),
        queue: settings.system(&POOL_QUEUE),
        queue_wait: Duration::from_millis(settings.system(&POOL_QUEUE_MS)),
        ..PoolLimits::default()
    }
}

/// The bounds of the cache.
#[must_use]
pub fn cache_config(settings: &Settings) -> CacheConfig {
    let mut config = CacheConfig::default();
    config.memory.l1_entries = settings.system(&CACHE_L1_ENTRIES);
    config.memory.l1_bytes = settings.system(&CACHE_L1_BYTES);
    config.memory.l1_ttl_ms = settings.system(&CACHE_L1_TTL_S) * 1000;
    config.l2_bytes = settings.system(&CACHE_L2_BYTES);
    config.stale_ms = settings.system(&CACHE_STALE_S) * 1000;
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_fits_its_declaration_and_its_type() {
        for declaration in DECLARATIONS {
            let value: serde_json::Value =
                serde_json::from_str(declaration.default).expect(declaration.key);
            assert_eq!(declaration.check(&value), Ok(()), "{}", declaration.key);
        }
        let values = Values::read(&Settings::defaults());
        assert_eq!(
            (
                values.attempts,
                values.breaker.open_ms,
                values.slow_start_ms
            ),
            (2, 30_000, 15_000)
        );
        assert_eq!(values.console_networks, None);
        let limited = networks(&["10.0.0.0/8".to_owned(), "::1".to_owned(), "x".to_owned()]);
        assert_eq!(limited.map(|n| n.len()), Some(2), "and never everybody");
        assert_eq!(networks(&["x".to_owned()]).map(|n| n.len()), Some(0));
        assert_eq!(pool_limits(&Settings::defaults()).connections, 1024);
        let (declared, built) = (cache_config(&Settings::defaults()), CacheConfig::default());
        assert_eq!(declared.memory, built.memory);
        assert_eq!(
            (declared.l2_bytes, declared.stale_ms),
            (built.l2_bytes, built.stale_ms)
        );
    }
}
