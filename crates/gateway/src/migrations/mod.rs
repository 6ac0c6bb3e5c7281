//! The gateway's tables, one step after the other.

use portico_db::schema::{
    big_integer, boolean, index, json_null, one_of, table, text, timestamp, uuid,
};
use portico_db::{Migrations, Step};

use crate::objects::Kind;

/// All steps, oldest first.
pub(crate) fn all() -> Migrations {
    Migrations::new([objects()])
}

fn objects() -> Step {
    let kinds = Kind::ALL.map(Kind::as_str);
    Step::new(
        "m0001_gateway_objects",
        [
            table("gateway_objects")
                .col(uuid("id").primary_key())
                .col(one_of("kind", &kinds))
                .col(text("name"))
                // The tenant, or zeros for the installation: a unique key does not see NULLs.
                .col(uuid("scope"))
                .col(big_integer("version"))
                .col(json_null("doc"))
                .col(text("author"))
                .col(text("message"))
                .col(timestamp("created_at"))
                .col(timestamp("born_at"))
                .col(boolean("active"))
                .take()
                .into(),
            index(
                "ux_gateway_objects",
                "gateway_objects",
                ["kind", "scope", "name", "version"],
            )
            .unique()
            .take()
            .into(),
            index(
                "ix_gateway_objects_active",
                "gateway_objects",
                ["active", "kind"],
            )
            .take()
            .into(),
        ],
    )
}
