//! The permissions that the gateway's routes and use-cases ask for (ID-20).

use portico_contract::permissions::PermissionDeclaration as Declaration;

/// All of them. Routes, releases, limits and the like hold for the whole installation, and its access
/// record shows everybody's requests: these are the system's.
pub(crate) const ALL: &[Declaration] = &[
    Declaration::admin(
        "gateway:topology:read",
        "read the map of services and its figures",
        "查看服务拓扑和指标",
    ),
    Declaration::admin(
        "gateway:breaker:read",
        "read circuit breakers",
        "查看熔断器",
    ),
    Declaration::admin(
        "gateway:breaker:write",
        "open and close circuit breakers",
        "打开和关闭熔断器",
    ),
    Declaration::admin("gateway:log:read", "read recent requests", "查看最近请求").system(),
    Declaration::admin(
        "gateway:cache:read",
        "read cache rules and figures",
        "查看缓存规则和指标",
    )
    .system(),
    Declaration::admin(
        "gateway:cache:write",
        "change cache rules and purge",
        "修改缓存规则和清除缓存",
    )
    .system(),
    Declaration::admin("gateway:route:read", "read routes", "查看路由").system(),
    Declaration::admin("gateway:route:write", "change routes", "修改路由").system(),
    Declaration::admin("gateway:release:read", "read releases", "查看发布").system(),
    Declaration::admin("gateway:release:write", "change releases", "修改发布").system(),
    Declaration::admin("gateway:limit:read", "read limits", "查看限流").system(),
    Declaration::admin("gateway:limit:write", "change limits", "修改限流").system(),
    Declaration::admin("gateway:cors:read", "read CORS rules", "查看跨域规则").system(),
    Declaration::admin("gateway:cors:write", "change CORS rules", "修改跨域规则").system(),
    Declaration::admin(
        "gateway:transform:read",
        "read transformations",
        "查看转换规则",
    )
    .system(),
    Declaration::admin(
        "gateway:transform:write",
        "change transformations",
        "修改转换规则",
    )
    .system(),
    Declaration::admin("gateway:host:read", "read hosts", "查看主机").system(),
    Declaration::admin("gateway:host:write", "change hosts", "修改主机").system(),
    Declaration::admin("gateway:block:read", "read blocks", "查看拦截规则").system(),
    Declaration::admin("gateway:block:write", "change blocks", "修改拦截规则").system(),
    Declaration::admin(
        "gateway:caller:read",
        "read which services may call which",
        "查看服务调用授权",
    )
    .system(),
    Declaration::admin(
        "gateway:caller:write",
        "let services call each other",
        "修改服务调用授权",
    )
    .system(),
    Declaration::admin("control:trace:read", "have a request traced", "跟踪请求").system(),
];
