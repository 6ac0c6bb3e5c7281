//! The permissions that the registry's routes and use-cases ask for (ID-20).

use portico_contract::permissions::PermissionDeclaration as Declaration;

/// All of them. What reaches beyond a tenant, or opens a way around its rules, is the system's.
pub(crate) const ALL: &[Declaration] = &[
    Declaration::admin(
        "registry:instance:read",
        "read instances with their addresses",
        "查看实例及其地址",
    ),
    Declaration::admin(
        "registry:instance:register",
        "register instances",
        "注册实例",
    ),
    Declaration::plain(
        "registry:instance:heartbeat",
        "keep registered instances alive",
        "为已注册实例续期",
    ),
    Declaration::admin(
        "registry:instance:write",
        "drain, weigh and remove instances",
        "排空、调权和移除实例",
    ),
    Declaration::admin("registry:service:read", "read services", "查看服务"),
    Declaration::admin(
        "registry:service:write",
        "switch services on and off",
        "启用和停用服务",
    ),
    Declaration::admin(
        "registry:directory:read",
        "follow the directory",
        "订阅服务目录",
    ),
    Declaration::admin(
        "registry:token:write",
        "make and remove registration tokens",
        "创建和移除注册令牌",
    ),
    Declaration::admin("registry:kv:read", "read keys and values", "读取键值"),
    Declaration::admin("registry:kv:write", "write keys and values", "写入键值"),
    Declaration::admin(
        "registry:session:write",
        "hold sessions and locks",
        "持有会话和锁",
    ),
    Declaration::admin("registry:event:write", "fire events", "触发事件"),
    Declaration::admin(
        "registry:name:write",
        "reserve and release names",
        "保留和释放名称",
    )
    .system(),
    Declaration::admin(
        "registry:tenant:write",
        "act for all tenants and for global services",
        "管理所有租户和全局服务",
    )
    .system(),
    Declaration::admin(
        "registry:public:write",
        "register services that anybody may call",
        "注册公开服务",
    )
    .system(),
    Declaration::admin(
        "registry:credentials:write",
        "register services that get the callers' credentials",
        "注册可获取调用方凭据的服务",
    )
    .system(),
    Declaration::admin(
        "registry:check:foreign",
        "check addresses of other hosts",
        "检查其他主机的地址",
    )
    .system(),
];
