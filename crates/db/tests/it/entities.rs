//! SeaORM's entities run on the reader and on transactions of both databases.

#![expect(unreachable_pub, reason = "the derived code wants its types public")]

use portico_base::{Clock as _, Timestamp, id};
use portico_db::schema::{big_integer, json, table, text_null, timestamp, uuid};
use portico_db::sea_orm::entity::prelude::*;
use portico_db::sea_orm::{
    self, ActiveValue::Set, FromJsonQueryResult, IntoActiveModel as _, QueryOrder as _,
    QuerySelect as _,
};
use portico_db::testing::each_backend;
use portico_db::{Migrations, Step};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct Details {
    colour: String,
    sizes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "things")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant_id: Uuid,
    pub number: i64,
    pub note: Option<String>,
    #[sea_orm(column_type = "JsonBinary")]
    pub details: Details,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

fn things() -> Migrations {
    Migrations::new([Step::new(
        "m0001_things",
        [table("things")
            .col(uuid("id").primary_key())
            .col(uuid("tenant_id"))
            .col(big_integer("number"))
            .col(text_null("note"))
            .col(json("details"))
            .col(timestamp("created_at"))
            .into()],
    )])
}

#[tokio::test]
async fn entities_are_written_read_changed_and_paged() {
    each_backend(async |t| {
        t.db.migrate(&[("test", things())]).await.unwrap();
        let random = portico_base::SeededRandom::new(1);
        let thing = |number: i64| Model {
            id: id::new_id(&t.clock, &random),
            tenant_id: id::TENANT_DEFAULT,
            number,
            note: None,
            details: Details {
                colour: "blue".to_owned(),
                sizes: vec![1, 2],
            },
            created_at: t.clock.now(),
        };
        let tx = t.db.begin().await.unwrap();
        let first = thing(0);
        let made = first.clone().into_active_model().insert(&tx).await.unwrap();
        assert_eq!(made, first);
        let many = (1..20).map(|n| thing(n).into_active_model());
        Entity::insert_many(many).exec(&tx).await.unwrap();
        let mut change = made.into_active_model();
        change.note = Set(Some("changed".to_owned()));
        let changed = change.update(&tx).await.unwrap();
        assert_eq!(changed.note.as_deref(), Some("changed"));
        tx.commit().await.unwrap();

        let found = Entity::find_by_id(first.id)
            .one(t.db.reader())
            .await
            .unwrap();
        assert_eq!(found, Some(changed));
        assert_eq!(Entity::find().count(t.db.reader()).await.unwrap(), 20);
        let query = Entity::find()
            .filter(Column::TenantId.eq(id::TENANT_DEFAULT))
            .filter(Column::Number.gt(4))
            .order_by_asc(Column::Number)
            .limit(4);
        let numbers: Vec<i64> = query
            .all(t.db.reader())
            .await
            .unwrap()
            .into_iter()
            .map(|m| m.number)
            .collect();
        assert_eq!(numbers, [5, 6, 7, 8]);
        let tx = t.db.begin().await.unwrap();
        let gone = Entity::delete_many()
            .filter(Column::Number.lt(10))
            .exec(&tx)
            .await
            .unwrap();
        assert_eq!(gone.rows_affected, 10);
        tx.commit().await.unwrap();
    })
    .await;
}
