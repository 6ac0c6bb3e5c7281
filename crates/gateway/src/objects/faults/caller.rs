//! What can be wrong with the document of a callee's callers.

use portico_base::name::is_service_name;
use portico_base::{FieldFault, Permission};

use super::Faults;
use crate::objects::doc::{CallerDoc, Validate};
use crate::route::pattern::Pattern;

impl Validate for CallerDoc {
    fn faults(&self) -> Vec<FieldFault> {
        let mut f = Faults::default();
        f.service("service".to_owned(), &self.service);
        f.check(
            self.description.len() <= 500,
            "description",
            "too_long",
            "must be at most 500 bytes",
        );
        f.check(
            !self.callers.is_empty(),
            "callers",
            "required",
            "at least one caller is needed",
        );
        f.list("callers", &self.callers);
        f.list("endpoints", &self.endpoints);
        f.list("permissions", &self.permissions);
        for (i, caller) in self.callers.iter().enumerate() {
            f.check(
                is_name_or_beginning(caller),
                format!("callers[{i}]"),
                "invalid",
                "must be a service name, or the beginning of one followed by `*`",
            );
        }
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            if let Err(why) = Pattern::parse(&endpoint.path) {
                f.add(format!("endpoints[{i}].path"), "invalid", why);
            }
            if let Some(method) = &endpoint.method {
                f.methods(
                    &format!("endpoints[{i}].method"),
                    std::slice::from_ref(method),
                );
            }
        }
        for (i, permission) in self.permissions.iter().enumerate() {
            if let Err(why) = Permission::parse(permission.as_str()) {
                f.add(format!("permissions[{i}]"), "invalid", why);
            }
        }
        f.0
    }
}

/// Everybody at once (`*`) is not a list of callers.
fn is_name_or_beginning(text: &str) -> bool {
    match text.strip_suffix('*') {
        Some(head) => {
            is_service_name(head) || (!head.is_empty() && is_service_name(&format!("{head}a")))
        }
        None => is_service_name(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::objects::Kind;

    #[test]
    fn every_fault_is_told_by_its_field() {
        let bad = json!({"service": "No Name", "callers": ["*", "ok-*", "B"],
            "endpoints": [{"method": "get", "path": "x"}], "permissions": ["a:b"]});
        let mut fields: Vec<String> = Kind::Caller
            .faults(&bad)
            .into_iter()
            .map(|fault| fault.field)
            .collect();
        fields.sort();
        assert_eq!(
            fields,
            [
                "callers[0]",
                "callers[2]",
                "endpoints[0].method[0]",
                "endpoints[0].path",
                "permissions[0]",
                "service"
            ]
        );
        let good = json!({"service": "music", "callers": ["shop", "demo-*"]});
        assert_eq!(Kind::Caller.faults(&good), []);
        let nobody = json!({"service": "music", "callers": []});
        assert_eq!(Kind::Caller.faults(&nobody).len(), 1);
    }
}
