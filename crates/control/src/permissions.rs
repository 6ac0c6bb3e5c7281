//! The permissions that control's routes and use-cases ask for (ID-20).

use portico_base::Permission;
use portico_contract::permissions::PermissionDeclaration as Declaration;

pub(crate) const JOB_READ: Permission = Permission::new("control:job:read");
pub(crate) const JOB_WRITE: Permission = Permission::new("control:job:write");
/// Beyond the own tenant: jobs of all tenants, schedules, pauses.
pub(crate) const JOB_ALL: Permission = Permission::new("control:job:all");
pub(crate) const BACKUP_READ: Permission = Permission::new("control:backup:read");
pub(crate) const BACKUP_WRITE: Permission = Permission::new("control:backup:write");
pub(crate) const BACKUP_RESTORE: Permission = Permission::new("control:backup:restore");
pub(crate) const SYSTEM_READ: Permission = Permission::new("control:system:read");
pub(crate) const SYSTEM_WRITE: Permission = Permission::new("control:system:write");

/// All of them, with what they allow.
pub(crate) const ALL: &[Declaration] = &[
    Declaration::admin("control:job:read", "read jobs", "查看任务"),
    Declaration::admin(
        "control:job:write",
        "retry and cancel jobs",
        "重试和取消任务",
    ),
    Declaration::admin(
        "control:job:all",
        "reach jobs of all tenants, schedules and pauses",
        "管理所有租户的任务、定时计划和暂停",
    )
    .system(),
    Declaration::admin("control:backup:read", "read backups", "查看备份").system(),
    Declaration::admin(
        "control:backup:write",
        "make, verify, fetch and remove backups",
        "创建、校验、下载和删除备份",
    )
    .system(),
    Declaration::admin(
        "control:backup:restore",
        "restore a backup in place of the present data",
        "用备份恢复并替换当前数据",
    )
    .system(),
    Declaration::admin(
        "control:system:read",
        "read the state of the system",
        "查看系统状态",
    )
    .system(),
    Declaration::admin("control:system:write", "change log levels", "调整日志级别").system(),
];
