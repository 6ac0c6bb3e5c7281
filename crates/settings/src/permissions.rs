//! The permissions that the routes and use-cases of settings ask for (ID-20).

use portico_base::Permission;
use portico_contract::permissions::PermissionDeclaration as Declaration;

pub(crate) const VALUE_READ: Permission = Permission::new("settings:value:read");
pub(crate) const VALUE_WRITE: Permission = Permission::new("settings:value:write");
pub(crate) const SECRET_WRITE: Permission = Permission::new("settings:secret:write");
/// Beyond the own tenant: the installation's values, and those of any tenant.
pub(crate) const SYSTEM_WRITE: Permission = Permission::new("settings:system:write");
pub(crate) const KEYS_READ: Permission = Permission::new("settings:keys:read");
pub(crate) const KEYS_ROTATE: Permission = Permission::new("settings:keys:rotate");

/// All of them, with what they allow.
pub(crate) const ALL: &[Declaration] = &[
    Declaration::admin("settings:value:read", "read settings", "查看设置"),
    Declaration::admin("settings:value:write", "change settings", "修改设置"),
    Declaration::admin(
        "settings:secret:write",
        "change settings that are secret",
        "修改机密设置",
    ),
    Declaration::admin(
        "settings:system:write",
        "act for the whole installation and for any tenant",
        "管理全局和任意租户的设置",
    )
    .system(),
    Declaration::admin(
        "settings:keys:read",
        "see which master keys seal secrets",
        "查看主密钥的使用情况",
    )
    .system(),
    Declaration::admin(
        "settings:keys:rotate",
        "seal all secrets with the current master key",
        "用当前主密钥重新加密全部机密",
    )
    .system(),
];
