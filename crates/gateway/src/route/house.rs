//! What the routes of built-in services ask of their callers, known before anybody is identified (GW-9, ID-112).

use foldhash::HashMap;
use http::Method;
use portico_base::{Access, Permission};
use portico_contract::permissions::PermissionDeclaration;
use portico_web::RouteInfo;

use super::pattern::{Pattern, Tree};

/// The routes of all built-in services.
#[derive(Debug, Default)]
pub struct HouseRoutes {
    services: HashMap<&'static str, Tree<HouseRoute>>,
    rights: Rights,
}

/// What is known of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HouseRoute {
    method: Method,
    /// Anybody may call it.
    pub public: bool,
    /// It needs an administrator's permission: management, which can have a network of its own.
    pub admin: bool,
    /// It needs a second factor, or a right over people or settings: it waits when revocations are not known.
    pub sensitive: bool,
    /// Pages of other origins may send their forms here.
    pub foreign: bool,
}

/// What plug-ins need to be there at all: they reach the registry where their clients reach them.
const MACHINES: [Permission; 2] = [
    Permission::new("registry:instance:register"),
    Permission::new("registry:directory:read"),
];

/// Permissions that end users or machines hold, too. What nobody declared is an administrator's.
#[derive(Debug, Default)]
struct Rights(Vec<Permission>);

impl Rights {
    fn is_admin(&self, permission: &Permission) -> bool {
        !self.0.iter().any(|plain| plain.covers(permission))
    }
}

impl HouseRoutes {
    /// Sorts the routes by what is declared of the permissions that they name.
    #[must_use]
    pub fn new(
        routes: &[(&'static str, std::sync::Arc<[RouteInfo]>)],
        declared: &[PermissionDeclaration],
    ) -> Self {
        let plain = declared.iter().filter(|d| !d.admin);
        let plain = plain.map(|d| Permission::new(d.name));
        let rights = Rights(plain.chain(MACHINES).collect());
        let mut services = HashMap::default();
        for (service, table) in routes {
            let tree: &mut Tree<HouseRoute> = services.entry(*service).or_default();
            for info in table.iter() {
                // axum and we write parameters the same way; a path of another form does not build.
                if let (Ok(pattern), Ok(method)) = (
                    Pattern::parse(&info.path),
                    Method::from_bytes(info.method.as_bytes()),
                ) {
                    let route = route(method, &info.access, &rights);
                    let foreign = info.foreign;
                    tree.insert(&pattern, HouseRoute { foreign, ..route });
                }
            }
        }
        Self { services, rights }
    }

    /// The route that a request to a built-in service reaches; nothing for paths that it does not have.
    #[must_use]
    pub fn find(&self, service: &str, method: &Method, below: &str) -> Option<&HouseRoute> {
        let method = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        self.services
            .get(service)?
            .find(below, |route| route.method == *method)
    }

    /// True when one of the permissions that an endpoint of a plug-in asks for is an administrator's of ours.
    #[must_use]
    pub fn is_admin(&self, service: &str, permissions: &[Permission]) -> bool {
        let own = |p: &&Permission| {
            let of = p.as_str().split(':').next().unwrap_or_default();
            of != service && self.services.contains_key(of)
        };
        permissions
            .iter()
            .filter(own)
            .any(|p| self.rights.is_admin(p))
    }
}

fn route(method: Method, access: &Access, rights: &Rights) -> HouseRoute {
    let (access, strong) = match access {
        Access::Strong { access, .. } => (&**access, true),
        other => (other, false),
    };
    let wanted: &[Permission] = match access {
        Access::Permission(one) => std::slice::from_ref(one),
        Access::AnyOf(several) => several,
        Access::Public | Access::Authenticated | Access::Strong { .. } => &[],
    };
    let about_people = |p: &Permission| {
        let text = p.as_str();
        text.starts_with("identity:") || text.starts_with("settings:")
    };
    HouseRoute {
        method,
        public: *access == Access::Public,
        // Of several any one is enough, so that one that users hold makes it theirs.
        admin: !wanted.is_empty() && wanted.iter().all(|p| rights.is_admin(p)),
        sensitive: strong || wanted.iter().any(about_people),
        foreign: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANAGE: Permission = Permission::new("identity:user:write");
    const REGISTER: Permission = Permission::new("registry:instance:register");

    fn house() -> HouseRoutes {
        let info = |method, path: &str, access| RouteInfo {
            method,
            path: path.to_owned(),
            access,
            foreign: false,
        };
        let routes = [
            info("POST", "/login/password", Access::Public),
            info("GET", "/me", Access::Authenticated),
            info("DELETE", "/me/totp", Access::Authenticated.aal2()),
            info("PATCH", "/users/{id}", Access::Permission(MANAGE)),
            info("POST", "/instances", Access::AnyOf(vec![MANAGE, REGISTER])),
        ];
        let declared = [
            PermissionDeclaration::admin("identity:user:write", "change users", "修改用户"),
            PermissionDeclaration::admin("registry:instance:register", "register", "注册"),
        ];
        HouseRoutes::new(&[("identity", routes.into())], &declared)
    }

    #[test]
    fn management_and_what_is_sensitive_are_told_apart() {
        let house = house();
        let of = |method: Method, path: &str| {
            house
                .find("identity", &method, path)
                .map(|r| (r.public, r.admin, r.sensitive))
        };
        assert_eq!(
            of(Method::POST, "/login/password"),
            Some((true, false, false))
        );
        assert_eq!(of(Method::HEAD, "/me"), Some((false, false, false)));
        assert_eq!(of(Method::DELETE, "/me/totp"), Some((false, false, true)));
        assert_eq!(of(Method::PATCH, "/users/7"), Some((false, true, true)));
        assert_eq!(of(Method::POST, "/instances"), Some((false, false, true)));
        assert_eq!(of(Method::GET, "/nothing"), None);
        assert_eq!(house.find("other", &Method::GET, "/me"), None);
    }

    #[test]
    fn an_endpoint_of_a_plug_in_is_management_when_it_asks_for_a_right_of_ours() {
        let house = house();
        assert!(house.is_admin("notes", &[MANAGE]));
        assert!(!house.is_admin("notes", &[Permission::new("notes:note:write")]));
        assert!(!house.is_admin("notes", &[]));
    }
}
