//! Use-cases of objects: save, delete, roll back; one version, one audit record, one event per change.

use portico_base::{Access, Context, Permission, Timestamp};
use portico_contract::audit::{Audit, Record};
use portico_db::{Db, Lease, WriteTx};
use serde_json::{Value, json};

use super::book::{Book, TOPIC};
use super::doc::Objects;
use super::kind::Kind;
use super::store::{self, Version};
use crate::error::Error;
use crate::release::{self, Refused, Serving};

/// Longest name of an object.
const MAX_NAME: usize = 80;
/// Objects of one kind.
const MAX_OBJECTS: usize = 5_000;

/// The use-cases. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ops {
    pub(crate) db: Db,
    pub(crate) audit: Audit,
    pub(crate) book: Book,
    /// What the route table knows of versions, for releases.
    pub(crate) serving: Serving,
}

/// What somebody wants an object to be.
pub(crate) struct Wish {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) doc: Value,
    pub(crate) message: String,
    /// The version that the caller saw; nothing to overwrite any.
    pub(crate) expected: Option<i64>,
    /// The object must not exist yet.
    pub(crate) create: bool,
    /// Only say what would happen.
    pub(crate) dry_run: bool,
}

/// A change of an object that is there, made from what it is.
pub(crate) struct Amendment<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    /// The version that the caller saw; another one is 412.
    pub(crate) expected: Option<i64>,
    /// The version when the request came in; another one is a conflict.
    pub(crate) seen: Option<i64>,
    /// The change is only right as long as this is held.
    pub(crate) lease: Option<&'a Lease>,
}

/// What became of a wish.
pub(crate) struct Saved {
    pub(crate) version: Version,
    /// Names of objects that match the same requests, older ones first.
    pub(crate) conflicts: Vec<String>,
}

impl Ops {
    /// Creates or replaces an object.
    pub(crate) async fn save(&self, cx: &Context, wish: Wish) -> Result<Saved, Error> {
        cx.authorise(&Access::Permission(wish.kind.write()))?;
        check_name(wish.kind, &wish.name)?;
        let faults = wish.kind.faults(&wish.doc);
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let conflicts = conflicts(wish.kind, &wish.name, &wish.doc, &self.book.current());
        let tx = self.begin(wish.kind, &wish.name).await?;
        let before = store::newest(&tx, wish.kind, None, &wish.name).await?;
        let present = before.as_ref().filter(|version| version.doc.is_some());
        match (present, wish.create, wish.expected) {
            (Some(_), true, _) => return Err(Error::Exists),
            (None, false, Some(_)) => return Err(Error::UnknownObject),
            (Some(present), _, Some(expected)) if present.version != expected => {
                return Err(Error::VersionMismatch(present.version));
            }
            _ => {}
        }
        if present.is_none()
            && store::active(&tx)
                .await?
                .iter()
                .filter(|v| v.kind == wish.kind)
                .count()
                >= MAX_OBJECTS
        {
            return Err(Error::TooManyObjects);
        }
        let doc = self.admitted(cx, wish.kind, &wish.name, present, wish.doc)?;
        let version = next(
            cx,
            wish.kind,
            &wish.name,
            before.as_ref(),
            Some(doc),
            &wish.message,
        );
        if wish.dry_run {
            return Ok(Saved { version, conflicts });
        }
        self.write(cx, tx, before.as_ref(), &version).await?;
        Ok(Saved { version, conflicts })
    }

    /// Deletes an object; its history stays.
    pub(crate) async fn delete(
        &self,
        cx: &Context,
        kind: Kind,
        name: &str,
        expected: Option<i64>,
    ) -> Result<(), Error> {
        cx.authorise(&Access::Permission(kind.write()))?;
        let tx = self.begin(kind, name).await?;
        let before = store::newest(&tx, kind, None, name).await?;
        let Some(present) = before.as_ref().filter(|version| version.doc.is_some()) else {
            return Err(Error::UnknownObject);
        };
        if expected.is_some_and(|expected| expected != present.version) {
            return Err(Error::VersionMismatch(present.version));
        }
        let version = next(cx, kind, name, before.as_ref(), None, "deleted");
        self.write(cx, tx, before.as_ref(), &version).await
    }

    /// Makes an earlier version the newest again.
    pub(crate) async fn rollback(
        &self,
        cx: &Context,
        kind: Kind,
        name: &str,
        to: Option<i64>,
        expected: Option<i64>,
        message: Option<String>,
    ) -> Result<Version, Error> {
        cx.authorise(&Access::Permission(kind.write()))?;
        let tx = self.begin(kind, name).await?;
        let before = store::newest(&tx, kind, None, name).await?;
        let Some(present) = &before else {
            return Err(Error::UnknownObject);
        };
        if expected.is_some_and(|expected| expected != present.version) {
            return Err(Error::VersionMismatch(present.version));
        }
        let to = to.unwrap_or(present.version - 1);
        let target = store::version(&tx, kind, None, name, to)
            .await?
            .ok_or(Error::UnknownVersion(to))?;
        let doc = target.doc;
        if let Some(faults) = doc
            .as_ref()
            .map(|doc| kind.faults(doc))
            .filter(|faults| !faults.is_empty())
        {
            return Err(Error::Invalid(faults));
        }
        let message = message.unwrap_or_else(|| format!("back to version {to}"));
        let doc = match doc {
            Some(doc) => Some(self.admitted(cx, kind, name, Some(present), doc)?),
            None => None,
        };
        let version = next(cx, kind, name, before.as_ref(), doc, &message);
        self.write(cx, tx, before.as_ref(), &version).await?;
        Ok(version)
    }

    /// Changes an object from what it is to what `change` makes of it, with the message that it gives. Two that
    /// do so at once, on any replicas, come one after the other, and the second sees what the first made.
    pub(crate) async fn amend(
        &self,
        cx: &Context,
        wish: Amendment<'_>,
        change: impl FnOnce(&Value, Timestamp) -> Result<(Value, String), Error>,
    ) -> Result<Version, Error> {
        let (kind, name) = (wish.kind, wish.name);
        cx.authorise(&Access::Permission(kind.write()))?;
        let tx = self.begin(kind, name).await?;
        if let Some(lease) = wish.lease {
            tx.fence(lease).await?;
        }
        let before = store::newest(&tx, kind, None, name).await?;
        let Some((present, doc)) = before.as_ref().and_then(|b| Some((b, b.doc.as_ref()?))) else {
            return Err(Error::UnknownObject);
        };
        if wish.expected.is_some_and(|e| e != present.version) {
            return Err(Error::VersionMismatch(present.version));
        }
        if wish.seen.is_some_and(|seen| seen != present.version) {
            return Err(Refused::Changed.into());
        }
        let (doc, message) = change(doc, cx.now())?;
        let version = next(cx, kind, name, before.as_ref(), Some(doc), &message);
        self.write(cx, tx, before.as_ref(), &version).await?;
        Ok(version)
    }

    /// The document as it is kept: a release gets the state that follows from it, and nobody gives services
    /// rights that they do not hold themselves.
    fn admitted(
        &self,
        cx: &Context,
        kind: Kind,
        name: &str,
        present: Option<&Version>,
        doc: Value,
    ) -> Result<Value, Error> {
        if kind == Kind::Caller {
            grantable(cx, &doc)?;
        }
        if kind != Kind::Release {
            return Ok(doc);
        }
        let before = present.and_then(|version| version.doc.as_ref());
        release::admitted(&self.serving, name, before, &doc, cx.now())
    }

    /// The active version of an object.
    pub(crate) async fn get(&self, cx: &Context, kind: Kind, name: &str) -> Result<Version, Error> {
        readable(cx, kind)?;
        store::newest(self.db.reader(), kind, None, name)
            .await?
            .filter(|version| version.doc.is_some())
            .ok_or(Error::UnknownObject)
    }

    /// The active versions of a kind behind a name, in the order of names.
    pub(crate) async fn list(
        &self,
        cx: &Context,
        kind: Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Version>, Error> {
        readable(cx, kind)?;
        let mut all = store::active(self.db.reader()).await?;
        all.retain(|version| {
            version.kind == kind && after.is_none_or(|after| version.name.as_str() > after)
        });
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.truncate(limit);
        Ok(all)
    }

    /// The history of an object, newest first.
    pub(crate) async fn versions(
        &self,
        cx: &Context,
        kind: Kind,
        name: &str,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Version>, Error> {
        readable(cx, kind)?;
        let versions =
            store::versions(self.db.reader(), kind, None, name, before, limit as u64).await?;
        if versions.is_empty() && before.is_none() {
            return Err(Error::UnknownObject);
        }
        Ok(versions)
    }

    /// A transaction that is alone with the object: of two changes at once the second sees what the first made,
    /// so that it fails for the reason that its caller can act on.
    async fn begin(&self, kind: Kind, name: &str) -> Result<WriteTx, Error> {
        let tx = self.db.begin().await?;
        tx.serialise(&format!("gateway_objects/{}/{name}", kind.as_str()))
            .await?;
        Ok(tx)
    }

    async fn write(
        &self,
        cx: &Context,
        tx: WriteTx,
        before: Option<&Version>,
        version: &Version,
    ) -> Result<(), Error> {
        store::add(&tx, version).await?;
        let action = match (before.and_then(|b| b.doc.as_ref()), &version.doc) {
            (None, _) => "gateway.object.created",
            (Some(_), Some(_)) => "gateway.object.changed",
            (Some(_), None) => "gateway.object.deleted",
        };
        let target = format!("{}/{}", version.kind.as_str(), version.name);
        let record = Record::done(action, "gateway_object", target, cx.tenant()).change(
            "doc",
            before.and_then(|before| before.doc.clone()),
            version.doc.clone(),
        );
        self.audit.record(&tx, cx, record).await?;
        let event = json!({ "kind": version.kind.as_str(), "name": version.name, "version": version.version });
        tx.publish(TOPIC, &version.name, &event)?;
        if version.kind == Kind::Release {
            let before = before.and_then(|before| before.doc.as_ref());
            for (topic, event) in release::events(&version.name, before, version.doc.as_ref()) {
                tx.publish(topic, &version.name, &event)?;
            }
        }
        tx.commit().await?;
        // The caller's own process routes by the change before the caller has its answer.
        self.book.refresh().await?;
        Ok(())
    }
}

fn readable(cx: &Context, kind: Kind) -> Result<(), Error> {
    cx.authorise(&Access::AnyOf(vec![kind.read(), kind.write()]))?;
    Ok(())
}

fn next(
    cx: &Context,
    kind: Kind,
    name: &str,
    before: Option<&Version>,
    doc: Option<Value>,
    message: &str,
) -> Version {
    let now = cx.now();
    Version {
        id: cx.new_id(),
        kind,
        name: name.to_owned(),
        tenant: None,
        version: before.map_or(1, |before| before.version + 1),
        doc,
        author: cx.principal().subject.to_string(),
        message: message.chars().take(500).collect(),
        created_at: now,
        born_at: before
            .filter(|b| b.doc.is_some())
            .map_or(now, |before| before.born_at),
    }
}

fn check_name(kind: Kind, name: &str) -> Result<(), Error> {
    let good = !name.is_empty()
        && name.len() <= MAX_NAME
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    // A release is named after its service.
    let good = good && (kind != Kind::Release || portico_base::name::is_service_name(name));
    if good {
        Ok(())
    } else {
        Err(Error::field(
            "name",
            "invalid",
            "must be of a-z, 0-9, `-`, `_`, `.`, at most 80",
        ))
    }
}

/// Routes with the same hosts, path, methods and conditions: the older one would win silently.
fn conflicts(kind: Kind, name: &str, doc: &Value, objects: &Objects) -> Vec<String> {
    if kind != Kind::Route {
        return Vec::new();
    }
    let Ok(doc) = serde_json::from_value::<super::doc::RouteDoc>(doc.clone()) else {
        return Vec::new();
    };
    crate::route::build::conflicts(&doc, name, &objects.routes)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Whoever lets services call gives them no more than they have (ID-22).
fn grantable(cx: &Context, doc: &Value) -> Result<(), Error> {
    let wanted = doc.get("permissions").and_then(Value::as_array);
    let texts = wanted.into_iter().flatten().filter_map(Value::as_str);
    for permission in texts.filter_map(|text| Permission::parse(text).ok()) {
        if !cx.principal().may(&permission) {
            return Err(Error::Missing(permission));
        }
    }
    Ok(())
}
