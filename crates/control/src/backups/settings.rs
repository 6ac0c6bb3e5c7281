//! When backups are made and verified, and which are kept.

use portico_backup::Keep;
use portico_contract::settings::{Danger, Declaration, Key, Kind};

/// When a backup is made.
pub(crate) const SCHEDULE: Key<String> = Key::new(
    Declaration::new(
        "backup.schedule",
        Kind::Text { max: 100 },
        "\"0 3 * * *\"",
        "when a backup is made (cron expression in system.time_zone)",
        "何时进行备份（cron 表达式，按 system.time_zone）",
    )
    .danger(Danger::Confirm),
);

/// When the newest backup is verified.
pub(crate) const VERIFY_SCHEDULE: Key<String> = Key::new(Declaration::new(
    "backup.verify_schedule",
    Kind::Text { max: 100 },
    "\"30 4 * * 0\"",
    "when the newest backup is verified (cron expression in system.time_zone)",
    "何时校验最新的备份（cron 表达式，按 system.time_zone）",
));

/// Which scheduled backups are kept.
pub(crate) const KEEP: Key<Keep> = Key::new(
    Declaration::new(
        "backup.keep",
        Kind::Object {
            schema: r#"{"type":"object","additionalProperties":false,"required":["daily","weekly","monthly"],"properties":{"daily":{"type":"integer","minimum":0,"maximum":1000},"weekly":{"type":"integer","minimum":0,"maximum":1000},"monthly":{"type":"integer","minimum":0,"maximum":1000}}}"#,
        },
        r#"{"daily":7,"weekly":4,"monthly":6}"#,
        "how many scheduled backups are kept, of days, weeks and months",
        "保留多少份定时备份（按天、周、月）",
    )
    .danger(Danger::Confirm),
);

/// Whether scheduled backups hold local objects.
pub(crate) const OBJECTS: Key<bool> = Key::new(Declaration::new(
    "backup.include_objects",
    Kind::Bool,
    "true",
    "scheduled backups hold the objects of this machine; those of a bucket are only named",
    "定时备份包含本机对象；存储桶中的对象只记录名称",
));

/// All of them.
pub(crate) const ALL: &[Declaration] = &[
    SCHEDULE.declaration,
    VERIFY_SCHEDULE.declaration,
    KEEP.declaration,
    OBJECTS.declaration,
];
