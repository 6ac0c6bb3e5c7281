//! The permissions that identity's routes and use-cases ask for (ID-20).

use portico_base::Permission;
use portico_contract::permissions::PermissionDeclaration as Declaration;

pub(crate) const USER_READ: Permission = Permission::new("identity:user:read");
pub(crate) const USER_WRITE: Permission = Permission::new("identity:user:write");
pub(crate) const PII_READ: Permission = Permission::new("identity:pii:read");
pub(crate) const SESSION_READ: Permission = Permission::new("identity:session:read");
pub(crate) const SESSION_WRITE: Permission = Permission::new("identity:session:write");
pub(crate) const TOKEN_INTROSPECT: Permission = Permission::new("identity:token:introspect");
pub(crate) const TOKEN_REVOKE: Permission = Permission::new("identity:token:revoke");
pub(crate) const ROLE_READ: Permission = Permission::new("identity:role:read");
pub(crate) const ROLE_WRITE: Permission = Permission::new("identity:role:write");
pub(crate) const TENANT_READ: Permission = Permission::new("identity:tenant:read");
pub(crate) const TENANT_WRITE: Permission = Permission::new("identity:tenant:write");
/// Beyond the own tenant: makes, suspends and administers all of them.
pub(crate) const TENANT_MANAGE: Permission = Permission::new("identity:tenant:manage");
pub(crate) const API_KEY_READ: Permission = Permission::new("identity:api_key:read");
pub(crate) const API_KEY_WRITE: Permission = Permission::new("identity:api_key:write");
pub(crate) const KEYS_READ: Permission = Permission::new("identity:keys:read");
pub(crate) const KEYS_ROTATE: Permission = Permission::new("identity:keys:rotate");
pub(crate) const SMS_READ: Permission = Permission::new("identity:sms:read");
pub(crate) const SMS_WRITE: Permission = Permission::new("identity:sms:write");
pub(crate) const APPLE_READ: Permission = Permission::new("identity:apple:read");
pub(crate) const MAIL_WRITE: Permission = Permission::new("identity:mail:write");
pub(crate) const SECURITY_READ: Permission = Permission::new("identity:security:read");
pub(crate) const SECURITY_WRITE: Permission = Permission::new("identity:security:write");

/// All of them, with what they allow.
pub(crate) const ALL: &[Declaration] = &[
    Declaration::admin("identity:user:read", "read users", "查看用户"),
    Declaration::admin(
        "identity:user:write",
        "change users and invite them",
        "修改和邀请用户",
    ),
    Declaration::admin(
        "identity:pii:read",
        "read phones, e-mail addresses and network addresses unmasked",
        "查看未脱敏的手机号、邮箱和网络地址",
    ),
    Declaration::admin("identity:session:read", "read sessions", "查看会话"),
    Declaration::admin("identity:session:write", "end sessions", "结束会话"),
    Declaration::admin(
        "identity:token:introspect",
        "ask about tokens",
        "查询令牌状态",
    ),
    Declaration::admin("identity:token:revoke", "revoke tokens", "吊销令牌"),
    Declaration::admin(
        "identity:role:read",
        "read roles and permissions",
        "查看角色和权限",
    ),
    Declaration::admin(
        "identity:role:write",
        "change roles and grant them",
        "修改和授予角色",
    ),
    Declaration::admin(
        "identity:tenant:read",
        "read the own tenant",
        "查看所属租户",
    ),
    Declaration::admin(
        "identity:tenant:write",
        "change the own tenant",
        "修改所属租户",
    ),
    Declaration::admin(
        "identity:tenant:manage",
        "administer all tenants",
        "管理所有租户",
    )
    .system(),
    Declaration::admin("identity:api_key:read", "read API keys", "查看 API 密钥"),
    Declaration::admin(
        "identity:api_key:write",
        "make and revoke API keys",
        "创建和吊销 API 密钥",
    ),
    Declaration::admin("identity:keys:read", "read signing keys", "查看签名密钥").system(),
    Declaration::admin(
        "identity:keys:rotate",
        "rotate signing keys and log everybody out",
        "轮换签名密钥并注销所有人",
    )
    .system(),
    Declaration::admin(
        "identity:sms:read",
        "read sent messages and their cost",
        "查看短信记录和费用",
    ),
    Declaration::admin(
        "identity:sms:write",
        "test message providers",
        "测试短信服务商",
    ),
    Declaration::admin(
        "identity:apple:read",
        "read how Sign in with Apple is set up",
        "查看“通过 Apple 登录”的配置状态",
    ),
    Declaration::admin(
        "identity:mail:write",
        "preview and test mails",
        "预览和测试邮件",
    )
    .system(),
    Declaration::admin(
        "identity:security:read",
        "read address rules and blocks",
        "查看地址规则和封禁",
    )
    .system(),
    Declaration::admin(
        "identity:security:write",
        "change address rules and lift blocks",
        "修改地址规则和解除封禁",
    )
    .system(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constant_is_declared_once() {
        let used = [
            USER_READ,
            USER_WRITE,
            PII_READ,
            SESSION_READ,
            SESSION_WRITE,
            TOKEN_INTROSPECT,
            TOKEN_REVOKE,
            ROLE_READ,
            ROLE_WRITE,
            TENANT_READ,
            TENANT_WRITE,
            TENANT_MANAGE,
            API_KEY_READ,
            API_KEY_WRITE,
            KEYS_READ,
            KEYS_ROTATE,
            SMS_READ,
            SMS_WRITE,
            SECURITY_READ,
            SECURITY_WRITE,
            APPLE_READ,
            MAIL_WRITE,
        ];
        for permission in &used {
            let times = ALL.iter().filter(|d| d.name == permission.as_str()).count();
            assert_eq!(times, 1, "{permission}");
        }
        assert_eq!(ALL.len(), used.len());
        for declaration in ALL {
            assert!(Permission::parse(declaration.name).is_ok());
            assert!(!declaration.title.is_empty() && !declaration.title_zh.is_empty());
        }
    }
}
