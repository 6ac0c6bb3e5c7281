//! The permissions that the audit's routes and use-cases ask for (ID-20).

use portico_base::Permission;
use portico_contract::permissions::PermissionDeclaration as Declaration;

/// To read records.
pub(crate) const READ: Permission = Permission::new("audit:record:read");
/// To read those of every tenant.
pub(crate) const READ_ALL: Permission = Permission::new("audit:tenant:read");
/// To look at the chain and verify it.
pub(crate) const VERIFY: Permission = Permission::new("audit:chain:verify");

/// All of them. The chain is one over all tenants.
pub(crate) const ALL: &[Declaration] = &[
    Declaration::admin("audit:record:read", "read audit records", "查看审计记录"),
    Declaration::admin(
        "audit:tenant:read",
        "read audit records of every tenant",
        "查看所有租户的审计记录",
    )
    .system(),
    Declaration::admin(
        "audit:chain:verify",
        "look at the audit chain, verify and export it",
        "查看、校验并导出审计链",
    )
    .system(),
];
