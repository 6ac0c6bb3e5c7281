//! Permissions that a service knows, declared with a title in both languages (ID-20).

/// A permission `service:resource:action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermissionDeclaration {
    /// Its name.
    pub name: &'static str,
    /// What it allows, in English.
    pub title: &'static str,
    /// What it allows, in Chinese.
    pub title_zh: &'static str,
    /// Whoever holds it is an administrator, who needs a second factor (ID-76).
    pub admin: bool,
    /// It reaches beyond one tenant: only roles of the system's tenant can hold it.
    pub system: bool,
}

impl PermissionDeclaration {
    /// A permission within a tenant, for administrators.
    #[must_use]
    pub const fn admin(name: &'static str, title: &'static str, title_zh: &'static str) -> Self {
        Self {
            name,
            title,
            title_zh,
            admin: true,
            system: false,
        }
    }

    /// A permission within a tenant, for anybody.
    #[must_use]
    pub const fn plain(name: &'static str, title: &'static str, title_zh: &'static str) -> Self {
        Self {
            admin: false,
            ..Self::admin(name, title, title_zh)
        }
    }

    /// The same, beyond one tenant.
    #[must_use]
    pub const fn system(mut self) -> Self {
        self.system = true;
        self
    }
}
