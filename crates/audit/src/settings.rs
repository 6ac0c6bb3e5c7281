//! Settings of the audit.

use portico_contract::settings::{Declaration, Key, Kind, SettingFault, Settings};
use uuid::Uuid;

/// Days after which sealed records are removed.
pub(crate) const RETENTION_DAYS: Key<u32> = Key::new(
    Declaration::new(
        "audit.retention_days",
        Kind::Integer {
            min: 30,
            max: 36_500,
        },
        "400",
        "days after which sealed audit records are removed",
        "已封存的审计记录保留天数",
    )
    .unit("d"),
);

/// Whether they are kept as objects before that.
pub(crate) const ARCHIVE: Key<bool> = Key::new(Declaration::new(
    "audit.archive",
    Kind::Bool,
    "false",
    "removed audit records are kept as files in the object storage",
    "删除前将审计记录归档到对象存储",
));

/// Links between two checkpoints.
pub(crate) const CHECKPOINT_EVERY: Key<u64> = Key::new(Declaration::new(
    "audit.checkpoint_every",
    Kind::Integer {
        min: 10,
        max: 100_000,
    },
    "1000",
    "audit records between two signed checkpoints",
    "每多少条审计记录签名一次检查点",
));

/// Time between two checkpoints, as long as there is something new.
pub(crate) const CHECKPOINT_MAX_S: Key<u64> = Key::new(
    Declaration::new(
        "audit.checkpoint_max_s",
        Kind::Integer {
            min: 60,
            max: 86_400,
        },
        "3600",
        "longest time until new audit records are under a signed checkpoint",
        "新审计记录最迟多久被签名检查点覆盖",
    )
    .unit("s"),
);

/// When the chain is verified.
pub(crate) const VERIFY_SCHEDULE: Key<String> = Key::new(Declaration::new(
    "audit.verify_schedule",
    Kind::Text { max: 100 },
    "\"0 5 * * *\"",
    "when the audit chain is verified (cron)",
    "审计链的校验时间（cron）",
));

/// When old records are removed.
pub(crate) const RETAIN_SCHEDULE: Key<String> = Key::new(Declaration::new(
    "audit.retain_schedule",
    Kind::Text { max: 100 },
    "\"30 4 * * *\"",
    "when audit records beyond their time are removed (cron)",
    "清理过期审计记录的时间（cron）",
));

/// Schedules that can be read (CT-3).
pub(crate) fn check(settings: &Settings, _tenant: Uuid) -> Vec<SettingFault> {
    portico_jobs::check_schedules(settings, &[&VERIFY_SCHEDULE, &RETAIN_SCHEDULE])
}

/// All of them.
pub(crate) const DECLARATIONS: &[Declaration] = &[
    RETENTION_DAYS.declaration,
    ARCHIVE.declaration,
    CHECKPOINT_EVERY.declaration,
    CHECKPOINT_MAX_S.declaration,
    VERIFY_SCHEDULE.declaration,
    RETAIN_SCHEDULE.declaration,
];
