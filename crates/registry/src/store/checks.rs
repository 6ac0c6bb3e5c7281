//! Nodes that were registered, and checks that stand on their own.

use std::sync::Arc;

use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Cond, Expr, ExprTrait as _, Query};
use uuid::Uuid;

use super::{broken, from_json, scope, tenant, to_i64, to_json, to_u64, upsert};
use crate::domain::check::{Check, CheckKey, Status};
use crate::domain::node::{Node, NodeKey};

const NODES: &str = "consul_nodes";
const CHECKS: &str = "consul_checks";

/// Writes a node.
pub(crate) async fn put_node(conn: &impl ConnectionTrait, n: &Node) -> Result<(), DbError> {
    upsert(
        conn,
        NODES,
        &["scope", "name"],
        ["scope", "name", "details", "create_index", "modify_index"],
        [
            scope(n.key.tenant).into(),
            n.key.name.to_string().into(),
            to_json(&n.details)?.into(),
            to_i64(n.create_index).into(),
            to_i64(n.modify_index).into(),
        ],
    )
    .await
}

/// Removes a node and its checks.
pub(crate) async fn delete_node(conn: &impl ConnectionTrait, key: &NodeKey) -> Result<(), DbError> {
    for (table, column) in [(NODES, "name"), (CHECKS, "node")] {
        let mut delete = Query::delete();
        delete
            .from_table(table)
            .and_where(Expr::col("scope").eq(scope(key.tenant)))
            .and_where(Expr::col(column).eq(key.name.to_string()));
        conn.execute(&delete).await?;
    }
    Ok(())
}

/// All nodes, or those with the keys.
pub(crate) async fn nodes(
    conn: &impl ConnectionTrait,
    keys: Option<&[NodeKey]>,
) -> Result<Vec<Node>, DbError> {
    let mut select = Query::select();
    select
        .columns(["scope", "name", "details", "create_index", "modify_index"])
        .from(NODES);
    if let Some(keys) = keys {
        let any = keys.iter().fold(Cond::any(), |any, key| {
            any.add(
                Expr::col("scope")
                    .eq(scope(key.tenant))
                    .and(Expr::col("name").eq(key.name.to_string())),
            )
        });
        select.cond_where(any);
    }
    super::all(conn, &select, |row| {
        let name: String = row.try_get("", "name")?;
        Ok(Node {
            key: NodeKey::new(tenant(row.try_get("", "scope")?), &name),
            details: from_json(row, "details")?,
            create_index: to_u64(row, "create_index")?,
            modify_index: to_u64(row, "modify_index")?,
        })
    })
    .await
}

/// Writes a check.
pub(crate) async fn put_check(conn: &impl ConnectionTrait, c: &Check) -> Result<(), DbError> {
    upsert(
        conn,
        CHECKS,
        &["scope", "node", "check_id"],
        [
            "scope",
            "node",
            "check_id",
            "instance_id",
            "name",
            "notes",
            "spec",
            "status",
            "output",
            "since",
            "create_index",
            "modify_index",
        ],
        [
            scope(c.key.node.tenant).into(),
            c.key.node.name.to_string().into(),
            c.key.id.to_string().into(),
            c.instance.into(),
            c.name.to_string().into(),
            c.notes.to_string().into(),
            to_json(&*c.spec)?.into(),
            c.status.as_str().into(),
            c.output.to_string().into(),
            c.since.into(),
            to_i64(c.create_index).into(),
            to_i64(c.modify_index).into(),
        ],
    )
    .await
}

/// Removes a check.
pub(crate) async fn delete_check(
    conn: &impl ConnectionTrait,
    key: &CheckKey,
) -> Result<(), DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(CHECKS)
        .and_where(Expr::col("scope").eq(scope(key.node.tenant)))
        .and_where(Expr::col("node").eq(key.node.name.to_string()))
        .and_where(Expr::col("check_id").eq(key.id.to_string()));
    conn.execute(&delete).await?;
    Ok(())
}

/// All checks, or those of some nodes.
pub(crate) async fn checks(
    conn: &impl ConnectionTrait,
    nodes: Option<&[NodeKey]>,
) -> Result<Vec<Check>, DbError> {
    let mut select = Query::select();
    select
        .columns([
            "scope",
            "node",
            "check_id",
            "instance_id",
            "name",
            "notes",
            "spec",
            "status",
            "output",
            "since",
            "create_index",
            "modify_index",
        ])
        .from(CHECKS);
    if let Some(nodes) = nodes {
        let any = nodes.iter().fold(Cond::any(), |any, key| {
            any.add(
                Expr::col("scope")
                    .eq(scope(key.tenant))
                    .and(Expr::col("node").eq(key.name.to_string())),
            )
        });
        select.cond_where(any);
    }
    super::all(conn, &select, check).await
}

fn check(row: &QueryResult) -> Result<Check, DbError> {
    let text = |column: &str| -> Result<Arc<str>, DbError> {
        Ok(Arc::from(row.try_get::<String>("", column)?))
    };
    let status: String = row.try_get("", "status")?;
    let node: String = row.try_get("", "node")?;
    let scope: Uuid = row.try_get("", "scope")?;
    Ok(Check {
        key: CheckKey {
            node: NodeKey::new(tenant(scope), &node),
            id: text("check_id")?,
        },
        instance: row.try_get("", "instance_id")?,
        name: text("name")?,
        notes: text("notes")?,
        spec: Arc::new(from_json(row, "spec")?),
        status: Status::parse(&status).ok_or_else(|| broken("status"))?,
        answered: true,
        output: text("output")?,
        since: row.try_get("", "since")?,
        stored: true,
        create_index: to_u64(row, "create_index")?,
        modify_index: to_u64(row, "modify_index")?,
    })
}
