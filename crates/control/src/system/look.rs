//! Looks at everything once and says how it does.

use portico_base::Timestamp;
use portico_db::{Backend, Db, Replica, ReplicaState};
use portico_desk::Desk;
use portico_host::disk_space;
use portico_host::health::CheckReport;
use serde_json::{Value, json};

use super::Sources;
use super::words::{Item, Status};
use crate::error::Result;

/// A certificate that ends sooner needs somebody's attention.
const CERTIFICATE_DAYS: i64 = 14;
/// A disk with a smaller share left does, too (CT-65).
const DISK_SHARE: f64 = 0.1;

/// All items, in the order in which people look at them.
pub(crate) async fn look(db: &Db, sources: &Sources, now: Timestamp) -> Result<Vec<Item>> {
    let health = sources.health.get();
    let reports = health.map(|health| health.reports()).unwrap_or_default();
    let replicas = db.replicas().list().await?;
    Ok(vec![
        versions(&replicas),
        processes(&replicas, now),
        database(db, &reports).await,
        redis(sources, &reports),
        objects(sources, &reports),
        certificates(sources, now),
        disk(sources, &reports),
        clock(&reports),
        jobs(db).await?,
    ])
}

fn versions(replicas: &[Replica]) -> Item {
    let mut all: Vec<&str> = alive(replicas).map(|r| &*r.version).collect();
    all.sort_unstable();
    all.dedup();
    let facts = json!({ "versions": all });
    match all.as_slice() {
        [one] => Item::new(
            "version",
            Status::Ok,
            format!("every process runs Portico {one}"),
            format!("所有进程都运行 Portico {one}"),
            facts,
        ),
        several => Item::new(
            "version",
            Status::Degraded,
            format!("processes run different versions: {}", several.join(", ")),
            format!("各进程版本不一致：{}", several.join("、")),
            facts,
        ),
    }
}

fn alive(replicas: &[Replica]) -> impl Iterator<Item = &Replica> {
    replicas.iter().filter(|r| r.state != ReplicaState::Lost)
}

fn processes(replicas: &[Replica], now: Timestamp) -> Item {
    let lost: Vec<&str> = replicas
        .iter()
        .filter(|r| r.state == ReplicaState::Lost)
        .map(|r| &*r.name)
        .collect();
    let shown: Vec<Value> = replicas.iter().map(|r| process(r, now)).collect();
    let count = alive(replicas).count();
    let facts = json!({ "replicas": shown });
    if lost.is_empty() {
        let en = match count {
            1 => "one process, and it answers".to_owned(),
            n => format!("{n} processes, and all of them answer"),
        };
        return Item::new(
            "replicas",
            Status::Ok,
            en,
            format!("{count} 个进程，全部正常"),
            facts,
        );
    }
    Item::new(
        "replicas",
        Status::Degraded,
        format!("not heard of for a while: {}", lost.join(", ")),
        format!("一段时间没有心跳：{}", lost.join("、")),
        facts,
    )
}

fn process(r: &Replica, now: Timestamp) -> Value {
    json!({
        "name": r.name,
        "version": r.version,
        "roles": r.roles,
        "zone": r.zone,
        "state": r.state.as_str(),
        "started_at": r.started_at,
        "heartbeat_at": r.heartbeat_at,
        "uptime_s": (now - r.started_at).num_seconds().max(0),
        // What it needs, and up to which positions it follows.
        "numbers": r.numbers,
    })
}

async fn database(db: &Db, reports: &[CheckReport]) -> Item {
    let begun = std::time::Instant::now();
    let answered = db.ping().await;
    let ms = begun.elapsed().as_secs_f64() * 1_000.0;
    let name = match db.backend() {
        Backend::Sqlite => "SQLite",
        Backend::Postgres => "PostgreSQL",
    };
    let pools: Vec<Value> = db
        .connections()
        .into_iter()
        .map(|(pool, c)| json!({ "pool": pool, "used": c.used, "idle": c.idle, "max": c.max }))
        .collect();
    let facts = json!({
        "kind": name,
        "answer_ms": (ms * 100.0).round() / 100.0,
        "encrypted": db.is_encrypted().await.ok().flatten(),
        "log_bytes": db.wal_bytes(),
        "pools": pools,
        "errors": db.metrics().errors().into_iter().filter(|(_, n)| *n > 0)
            .map(|(kind, n)| (kind.to_owned(), json!(n))).collect::<serde_json::Map<_, _>>(),
    });
    if let Err(error) = answered {
        return Item::new(
            "database",
            Status::Failed,
            format!("{name} does not answer: {error}"),
            format!("{name} 没有响应：{error}"),
            facts,
        );
    }
    let well = (
        format!("{name} answers within {ms:.1} ms"),
        format!("{name} 在 {ms:.1} 毫秒内响应"),
    );
    checked("database", reports, well, facts)
}

fn redis(sources: &Sources, reports: &[CheckReport]) -> Item {
    let Some(redis) = sources.state.status().redis else {
        return Item::new(
            "redis",
            Status::Ok,
            "no Redis is set up: right for one process, and for two with PostgreSQL",
            "未配置 Redis：单进程或使用 PostgreSQL 的双进程可以不用",
            json!({ "configured": false }),
        );
    };
    let facts = json!({
        "configured": true,
        "up": redis.up,
        "bus_up": redis.bus_up,
        "since": redis.since,
        "encrypted_or_local": !redis.plain,
        "last_error": redis.last_error,
    });
    let well = (
        "Redis answers and its messages arrive".to_owned(),
        "Redis 正常，消息可达".to_owned(),
    );
    checked("redis", reports, well, facts)
}

fn objects(sources: &Sources, reports: &[CheckReport]) -> Item {
    let facts = json!({ "trouble": sources.objects.trouble() });
    let well = (
        "objects are read and written".to_owned(),
        "对象存储读写正常".to_owned(),
    );
    checked("objects", reports, well, facts)
}

fn certificates(sources: &Sources, now: Timestamp) -> Item {
    let all = sources.certificates.read();
    let days = |ends_s: i64| (ends_s - now.timestamp()).div_euclid(86_400);
    let shown: Vec<Value> = all
        .iter()
        .map(|c| json!({ "name": c.name, "ends_s": c.ends_s, "days": days(c.ends_s) }))
        .collect();
    let facts = json!({ "certificates": shown });
    let Some(first) = all.iter().min_by_key(|c| c.ends_s) else {
        return Item::new(
            "certificates",
            Status::Ok,
            "this process listens with no certificate",
            "本进程未使用证书",
            facts,
        );
    };
    let (name, left) = (&first.name, days(first.ends_s));
    if left < 0 {
        return Item::new(
            "certificates",
            Status::Failed,
            format!("the certificate of {name} has ended: clients refuse it"),
            format!("{name} 的证书已过期，客户端会拒绝"),
            facts,
        );
    }
    let status = if left < CERTIFICATE_DAYS {
        Status::Degraded
    } else {
        Status::Ok
    };
    Item::new(
        "certificates",
        status,
        format!("the next to end is that of {name}, in {left} days"),
        format!("最先到期的是 {name} 的证书，还有 {left} 天"),
        facts,
    )
}

fn disk(sources: &Sources, reports: &[CheckReport]) -> Item {
    const GB: f64 = 1e9;
    let Some((free, total)) = disk_space(&sources.data_dir) else {
        return Item::new(
            "disk",
            Status::Degraded,
            "the disk of the data directory does not say how full it is",
            "无法获知数据目录所在磁盘的用量",
            json!({}),
        );
    };
    let facts = json!({ "free_bytes": free, "total_bytes": total });
    let (free_gb, share) = (free as f64 / GB, free as f64 / (total as f64).max(1.0));
    let percent = share * 100.0;
    let words = (
        format!("{free_gb:.1} GB are free, {percent:.0} % of the disk"),
        format!("剩余 {free_gb:.1} GB，占磁盘 {percent:.0}%"),
    );
    if share < DISK_SHARE {
        return Item::new("disk", Status::Degraded, words.0, words.1, facts);
    }
    checked("disk", reports, words, facts)
}

fn clock(reports: &[CheckReport]) -> Item {
    let well = (
        "the clock agrees with those of the database and Redis".to_owned(),
        "时钟与数据库和 Redis 一致".to_owned(),
    );
    checked("clock", reports, well, json!({}))
}

async fn jobs(db: &Db) -> Result<Item> {
    let kinds = Desk::new(db.clone()).kinds().await?;
    let dead: u64 = kinds.iter().map(|kind| kind.dead).sum();
    let waiting: u64 = kinds.iter().map(|kind| kind.ready + kind.retrying).sum();
    let paused: Vec<&str> = kinds
        .iter()
        .filter(|kind| kind.paused_at.is_some())
        .map(|kind| &*kind.kind)
        .collect();
    let facts = json!({ "dead": dead, "waiting": waiting, "paused": paused });
    Ok(if dead > 0 {
        Item::new(
            "jobs",
            Status::Degraded,
            format!("{dead} jobs were given up: look at them, retry or cancel"),
            format!("有 {dead} 个任务已放弃，请查看并重试或取消"),
            facts,
        )
    } else if paused.is_empty() {
        Item::new(
            "jobs",
            Status::Ok,
            format!("no job was given up, {waiting} wait"),
            format!("没有放弃的任务，{waiting} 个在等待"),
            facts,
        )
    } else {
        Item::new(
            "jobs",
            Status::Degraded,
            format!("paused: {}", paused.join(", ")),
            format!("已暂停：{}", paused.join("、")),
            facts,
        )
    })
}

/// What the health check of this name found, or that all is well.
fn checked(
    name: &'static str,
    reports: &[CheckReport],
    well: (String, String),
    facts: Value,
) -> Item {
    let report = reports.iter().find(|report| report.name == name);
    match report {
        Some(report) if report.status != "ok" => {
            let why = report.detail.clone().unwrap_or_default();
            let since = report.since.to_rfc3339();
            Item::new(
                name,
                Status::parse(report.status),
                format!("{why} (since {since})"),
                format!("{why}（自 {since} 起）"),
                facts,
            )
        }
        _ => Item::new(name, Status::Ok, well.0, well.1, facts),
    }
}

#[cfg(test)]
mod tests {
    use portico_base::clock::from_unix_ms;
    use uuid::Uuid;

    use super::*;

    fn replica(name: &str, version: &str, state: ReplicaState) -> Replica {
        Replica {
            id: Uuid::from_u128(1),
            name: name.to_owned(),
            version: version.to_owned(),
            roles: vec!["all".to_owned()],
            zone: String::new(),
            internal_url: None,
            started_at: from_unix_ms(0),
            heartbeat_at: from_unix_ms(60_000),
            state,
            numbers: json!({ "memory_bytes": 1.0 }),
        }
    }

    #[test]
    fn processes_that_are_lost_or_of_another_version_are_named() {
        let ready = |name, version| replica(name, version, ReplicaState::Ready);
        let same = [ready("a", "1.0.0"), ready("b", "1.0.0")];
        assert_eq!(versions(&same).status, Status::Ok);
        let item = processes(&same, from_unix_ms(90_000));
        assert_eq!(
            (item.status, &*item.verdict.0),
            (Status::Ok, "2 processes, and all of them answer")
        );
        assert_eq!(item.facts["replicas"][0]["uptime_s"], 90);
        let mixed = [
            ready("a", "1.0.0"),
            ready("b", "1.1.0"),
            replica("c", "0.9.0", ReplicaState::Lost),
        ];
        assert_eq!(
            versions(&mixed).verdict.0,
            "processes run different versions: 1.0.0, 1.1.0"
        );
        let item = processes(&mixed, from_unix_ms(90_000));
        assert_eq!(item.status, Status::Degraded);
        assert!(item.verdict.0.ends_with(": c") && item.verdict.1.ends_with("c"));
    }

    #[test]
    fn a_failed_check_speaks_for_its_item() {
        let health =
            portico_host::Health::new(std::sync::Arc::new(portico_base::SystemClock), Vec::new());
        let well = || ("fine".to_owned(), "好".to_owned());
        let item = checked("clock", &health.reports(), well(), json!({}));
        assert_eq!((item.status, item.verdict), (Status::Ok, well()));
    }
}
