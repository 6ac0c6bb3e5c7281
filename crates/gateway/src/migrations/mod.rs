//! The gateway's tables, one step after the other.

use portico_db::schema::{
    big_integer, boolean, bytes, index, json_null, key, one_of, table, text, timestamp, uuid,
};
use portico_db::{Migrations, Step};

use crate::objects::Kind;

/// All steps, oldest first.
pub(crate) fn all() -> Migrations {
    Migrations::new([objects(), release_counts()])
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

/// What each process counted of each trial of a release, for all to add up.
fn release_counts() -> Step {
    Step::new(
        "m0002_gateway_release_counts",
        [table("gateway_release_counts")
            .col(text("service"))
            .col(big_integer("run"))
            .col(text("version"))
            .col(text("replica"))
            .col(bytes("counts"))
            .col(timestamp("at"))
            .primary_key(&mut key(["service", "run", "version", "replica"]))
            .take()
            .into()],
    )
}
