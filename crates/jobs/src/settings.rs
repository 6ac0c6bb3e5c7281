//! Settings of jobs and schedules; the control service declares them for the installation.

use portico_contract::settings::{Declaration, Key, Kind};

/// The time zone in which schedules are meant.
pub const TIME_ZONE: Key<String> = Key::new(Declaration::new(
    "system.time_zone",
    Kind::Text { max: 64 },
    "\"UTC\"",
    "time zone of schedules and working hours (IANA name, Asia/Shanghai)",
    "定时计划和工作时间所用时区（IANA 名称，如 Asia/Shanghai）",
));

/// Runs of one process at a time, without those of small kinds.
pub const AT_ONCE: Key<usize> = Key::new(Declaration::new(
    "ops.jobs.at_once",
    Kind::Integer { min: 1, max: 500 },
    "16",
    "jobs that one process runs at a time, besides small ones",
    "单个进程同时运行的任务数（小任务除外）",
));

/// Runs of one process at a time, by queue (first word of the kinds).
pub const QUEUES: Key<std::collections::BTreeMap<String, usize>> = Key::new(Declaration::new(
    "ops.jobs.queues",
    Kind::Json,
    "{}",
    "most jobs of a queue that one process runs at a time, by queue: {\"identity\": 4}",
    "各队列在单个进程内同时运行的任务上限，例如 {\"identity\": 4}",
));

/// Ended jobs are kept so long.
pub const KEEP_DONE_H: Key<u32> = Key::new(
    Declaration::new(
        "ops.jobs.keep_done_h",
        Kind::Integer { min: 1, max: 8_760 },
        "168",
        "done and cancelled jobs are kept so long",
        "已完成和已取消任务的保留时间",
    )
    .unit("h"),
);

/// Dead jobs are kept so long.
pub const KEEP_DEAD_D: Key<u32> = Key::new(
    Declaration::new(
        "ops.jobs.keep_dead_d",
        Kind::Integer { min: 1, max: 3_650 },
        "90",
        "dead jobs are kept so long",
        "失败任务的保留时间",
    )
    .unit("d"),
);

/// When ended jobs are removed.
pub const SWEEP_SCHEDULE: Key<String> = Key::new(Declaration::new(
    "ops.jobs.sweep_schedule",
    Kind::Text { max: 100 },
    "\"17 * * * *\"",
    "when ended jobs are removed (cron)",
    "清理已结束任务的时间（cron）",
));

/// All of them.
pub const ALL: &[Declaration] = &[
    TIME_ZONE.declaration,
    AT_ONCE.declaration,
    QUEUES.declaration,
    KEEP_DONE_H.declaration,
    KEEP_DEAD_D.declaration,
    SWEEP_SCHEDULE.declaration,
];
