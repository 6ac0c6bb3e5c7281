//! Finding users: each kind of search is paged over an index of its own (ID-13).

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::ConnectionTrait;
use portico_db::sea_query::{Cond, Expr, ExprTrait as _, Order, Query, SelectStatement};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{all, one, users};
use crate::domain::user::{User, UserStatus};

/// What is looked for within a tenant; all of it must fit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Search {
    pub id: Option<Uuid>,
    /// Beginning of a name, folded as names are.
    pub name: Option<String>,
    /// Key of an e-mail address.
    pub email: Option<String>,
    /// E.164.
    pub phone: Option<String>,
    /// Without one, all but deleted users.
    pub status: Option<UserStatus>,
    pub role: Option<Uuid>,
    /// From, included, and to, excluded.
    pub created: (Option<Timestamp>, Option<Timestamp>),
    pub login: (Option<Timestamp>, Option<Timestamp>),
    /// Method of the last login.
    pub method: Option<String>,
}

/// The last user of a page in the order of the search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Key {
    Created(Timestamp, Uuid),
    Name(String, Uuid),
    Login(Timestamp, Uuid),
    /// Ids of users rise with time.
    Holder(Uuid),
}

/// The order that an index gives for a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Created,
    Name,
    Login,
    Holder,
}

impl Search {
    const fn by(&self) -> By {
        let exact = self.id.is_some() || self.email.is_some() || self.phone.is_some();
        if exact {
            By::Created
        } else if self.name.is_some() {
            By::Name
        } else if self.role.is_some() {
            By::Holder
        } else if self.login.0.is_some() || self.login.1.is_some() {
            By::Login
        } else {
            By::Created
        }
    }

    /// Where a page ends that ends with this user.
    pub(crate) fn key(&self, user: &User) -> Key {
        match self.by() {
            By::Created => Key::Created(user.created_at, user.id),
            By::Name => Key::Name(users::search_key(user), user.id),
            By::Login => Key::Login(user.last_login_at.unwrap_or_default(), user.id),
            By::Holder => Key::Holder(user.id),
        }
    }

    /// True when the key is one of this search's order.
    pub(crate) const fn takes(&self, key: &Key) -> bool {
        matches!(
            (self.by(), key),
            (By::Created, Key::Created(..))
                | (By::Name, Key::Name(..))
                | (By::Login, Key::Login(..))
                | (By::Holder, Key::Holder(_))
        )
    }
}

/// One page of users behind `after`.
pub(crate) async fn page(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    search: &Search,
    after: Option<&Key>,
    limit: u64,
) -> Result<Vec<User>, DbError> {
    all(conn, &statement(tenant, search, after, limit), users::read).await
}

/// How many users fit, counted up to `most`.
pub(crate) async fn count(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    search: &Search,
    most: u64,
) -> Result<u64, DbError> {
    let mut select = Query::select();
    select
        .expr_as(Expr::col("id").count(), "n")
        .from_subquery(statement(tenant, search, None, most), "some");
    let count = one(conn, &select, |row| Ok(row.try_get::<i64>("", "n")?)).await?;
    Ok(count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// The statement of a page; tests look at its plan.
pub(crate) fn statement(
    tenant: Uuid,
    search: &Search,
    after: Option<&Key>,
    limit: u64,
) -> SelectStatement {
    let mut select = users::select();
    select.limit(limit);
    filter(&mut select, search);
    match search.by() {
        By::Created => {
            select
                .and_where(Expr::col("tenant_id").eq(tenant))
                .order_by("created_at", Order::Desc)
                .order_by("id", Order::Desc);
        }
        By::Name => {
            select
                .and_where(Expr::col("tenant_id").eq(tenant))
                .order_by("search_key", Order::Asc)
                .order_by("id", Order::Asc);
        }
        By::Login => {
            select
                .and_where(Expr::col("tenant_id").eq(tenant))
                .and_where(Expr::col("last_login_at").is_not_null())
                .order_by("last_login_at", Order::Desc)
                .order_by("id", Order::Desc);
        }
        By::Holder => {
            select
                .inner_join(
                    "user_roles",
                    Expr::col(("user_roles", "user_id")).equals(("users", "id")),
                )
                .and_where(Expr::col(("users", "tenant_id")).eq(tenant))
                .and_where(Expr::col(("user_roles", "tenant_id")).eq(tenant))
                .and_where(Expr::col(("user_roles", "role_id")).eq(search.role.unwrap_or_default()))
                .order_by(("user_roles", "user_id"), Order::Desc);
        }
    }
    if let Some(key) = after {
        select.cond_where(behind(key));
    }
    select
}

fn filter(select: &mut SelectStatement, search: &Search) {
    let text = |column: &'static str, value: &str| Expr::col(column).eq(value.to_owned());
    if let Some(id) = search.id {
        select.and_where(Expr::col(("users", "id")).eq(id));
    }
    if let Some(email) = &search.email {
        select.and_where(text("email_key", email));
    }
    if let Some(phone) = &search.phone {
        select.and_where(text("phone", phone));
    }
    if let Some(name) = &search.name {
        select.and_where(Expr::col("search_key").gte(name.clone().into_bytes()));
        if let Some(end) = end_of_prefix(name.as_bytes()) {
            select.and_where(Expr::col("search_key").lt(end));
        }
    }
    match search.status {
        Some(status) => select.and_where(text("status", status.as_str())),
        None => select.and_where(Expr::col("status").ne(UserStatus::Deleted.as_str())),
    };
    if let Some(role) = search.role.filter(|_| search.by() != By::Holder) {
        let mut held = Query::select();
        held.column(("user_roles", "user_id"))
            .from("user_roles")
            .and_where(Expr::col(("user_roles", "user_id")).equals(("users", "id")))
            .and_where(Expr::col(("user_roles", "role_id")).eq(role));
        select.and_where(Expr::exists(held));
    }
    if let Some(method) = &search.method {
        select.and_where(text("last_login_method", method));
    }
    for (column, (from, to)) in [
        ("created_at", search.created),
        ("last_login_at", search.login),
    ] {
        if let Some(from) = from {
            select.and_where(Expr::col(("users", column)).gte(from));
        }
        if let Some(to) = to {
            select.and_where(Expr::col(("users", column)).lt(to));
        }
    }
}

/// Behind a key: a bound that the index can begin at, and then exactly.
fn behind(key: &Key) -> Cond {
    let older = |column: &'static str, at: Timestamp, id: Uuid| {
        Cond::all().add(Expr::col(column).lte(at)).add(
            Cond::any()
                .add(Expr::col(column).lt(at))
                .add(Expr::col("id").lt(id)),
        )
    };
    match key {
        Key::Created(at, id) => older("created_at", *at, *id),
        Key::Login(at, id) => older("last_login_at", *at, *id),
        Key::Name(name, id) => {
            let name = name.clone().into_bytes();
            Cond::all()
                .add(Expr::col("search_key").gte(name.clone()))
                .add(
                    Cond::any()
                        .add(Expr::col("search_key").gt(name))
                        .add(Expr::col("id").gt(*id)),
                )
        }
        Key::Holder(id) => Cond::all().add(Expr::col(("user_roles", "user_id")).lt(*id)),
    }
}

/// The first bytes that do not begin with `prefix` any more; nothing when there are none.
fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}
