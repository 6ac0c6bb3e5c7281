//! `portico.identity.v1.AuthService`: what services behind the door ask about tokens (spec §4, ID-172).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream::{self, Stream};
use portico_base::{Access, Context, Permission, PrincipalKind, Secret, Timestamp, id};
use portico_contract::credentials::Credentials;
use portico_contract::tokens::Denied;
use portico_proto::identity::v1 as proto;
use portico_proto::identity::v1::auth_service_server::{AuthService, AuthServiceServer};
use portico_rpc::{Call, MAX_MESSAGE, Method, RpcRoutes, call};
use prost_types::Timestamp as ProtoTimestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::ops::introspect::{self, Target};
use crate::ops::refresh::{self, Wish};
use crate::ops::scope;
use crate::ops::sessions::LogOut;
use crate::permissions::TOKEN_INTROSPECT;
use crate::store::revocations::{self, Kind, Revocation};

/// Longer tokens are not looked at.
const MAX_TOKEN: usize = 8 * 1024;
/// Permissions that one question may name.
const MAX_PERMISSIONS: usize = 100;
/// Prefix of API keys.
const API_KEY: &str = "ptk_";
/// The longest wait for an API key that is not in memory.
const PATIENCE: Duration = Duration::from_secs(2);
/// Watchers of one process.
const WATCHERS: usize = 1_000;
/// Rows of one reading.
const BATCH: u64 = 500;
/// A quiet stream says so often that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

type Answer<T> = std::result::Result<Response<T>, Status>;

/// The gRPC services of identity.
pub(crate) fn routes(core: &Arc<Core>, credentials: &Credentials) -> RpcRoutes {
    let (told, position) = watch::channel(0);
    // The edge of this process hears of every replica's revocations, once it knows them itself.
    core.edge.listen(Arc::new(move |revocation: &Revocation| {
        told.send_if_modified(|seq| {
            let is_new = revocation.seq > *seq;
            *seq = revocation.seq.max(*seq);
            is_new
        });
    }));
    let service = Auth {
        core: Arc::clone(core),
        credentials: credentials.clone(),
        position,
        watchers: Arc::new(AtomicUsize::new(0)),
    };
    let server = AuthServiceServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    // The use-cases decide who may: services need no permission, others do, people never may.
    let known = || Access::Authenticated;
    RpcRoutes::new().describe(portico_proto::DESCRIPTORS).add(
        server,
        [
            Method::unary("VerifyToken", known()),
            Method::unary("RefreshToken", known()),
            Method::unary("RevokeToken", known()),
            Method::unary("RevokeDevice", known()),
            Method::stream("WatchRevocations", known()),
        ],
    )
}

struct Auth {
    core: Arc<Core>,
    credentials: Credentials,
    /// Rises when the edge has learnt of a revocation.
    position: watch::Receiver<u64>,
    watchers: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl AuthService for Auth {
    async fn verify_token(
        &self,
        request: Request<proto::VerifyTokenRequest>,
    ) -> Answer<proto::VerifyTokenResponse> {
        let call = call(&request)?;
        let asked = request.into_inner();
        let verified = self.verify(&call.context, &asked).await;
        let verified = verified.map_err(|error| call.fail(&error))?;
        Ok(Response::new(verified))
    }

    async fn refresh_token(
        &self,
        request: Request<proto::RefreshTokenRequest>,
    ) -> Answer<proto::RefreshTokenResponse> {
        let call = call(&request)?;
        let refreshed = self.refresh(&call.context, request.into_inner());
        let refreshed = Box::pin(refreshed).await;
        Ok(Response::new(refreshed.map_err(|error| call.fail(&error))?))
    }

    async fn revoke_token(
        &self,
        request: Request<proto::RevokeTokenRequest>,
    ) -> Answer<proto::RevokeTokenResponse> {
        let call = call(&request)?;
        let revoked = Box::pin(self.revoke(&call.context, request.into_inner())).await;
        revoked.map_err(|error| call.fail(&error))?;
        Ok(Response::new(proto::RevokeTokenResponse {}))
    }

    async fn revoke_device(
        &self,
        request: Request<proto::RevokeDeviceRequest>,
    ) -> Answer<proto::RevokeDeviceResponse> {
        let call = call(&request)?;
        let asked = request.into_inner();
        let ended = Box::pin(self.end_device(&call.context, &asked)).await;
        let ended = ended.map_err(|error| call.fail(&error))?;
        let session_ids = ended.iter().map(Uuid::to_string).collect();
        Ok(Response::new(proto::RevokeDeviceResponse { session_ids }))
    }

    type WatchRevocationsStream =
        Pin<Box<dyn Stream<Item = std::result::Result<Event, Status>> + Send>>;

    async fn watch_revocations(
        &self,
        request: Request<proto::WatchRevocationsRequest>,
    ) -> Answer<Self::WatchRevocationsStream> {
        let call = call(&request)?;
        introspect::need_service(&call.context, TOKEN_INTROSPECT)
            .map_err(|error| call.fail(&error))?;
        let seat = Seat::take(&self.watchers).ok_or_else(|| {
            Status::resource_exhausted(format!("at most {WATCHERS} watchers are served"))
        })?;
        let watch = Watch {
            core: Arc::clone(&self.core),
            only: only_tenant(&call.context),
            seq: request.into_inner().after_seq,
            position: self.position.clone(),
            waiting: VecDeque::new(),
            snapshot: true,
            said: Instant::now(),
            call,
            _seat: seat,
        };
        let events = stream::unfold(watch, |mut watch| async move {
            let event = watch.next().await;
            Some((event, watch))
        });
        Ok(Response::new(Box::pin(events)))
    }
}

impl Auth {
    async fn verify(
        &self,
        cx: &Context,
        asked: &proto::VerifyTokenRequest,
    ) -> Result<proto::VerifyTokenResponse> {
        introspect::need_service(cx, TOKEN_INTROSPECT)?;
        if asked.permissions.len() > MAX_PERMISSIONS {
            let text = format!("at most {MAX_PERMISSIONS} permissions");
            return Err(Error::field("permissions", "too_many", text));
        }
        let wanted = asked
            .permissions
            .iter()
            .enumerate()
            .map(|(at, text)| {
                let field = format!("permissions[{at}]");
                Permission::parse(text).map_err(|why| Error::field(&field, "malformed", why))
            })
            .collect::<Result<Vec<_>>>()?;
        let (principal, expires_at) = match self.find(cx, asked).await {
            Ok(found) => found,
            Err(Denied::REVOCATIONS_STALE) => return Err(reason::REVOCATIONS_STALE.into()),
            Err(why) => {
                return Ok(proto::VerifyTokenResponse {
                    reason: why.code().to_owned(),
                    ..Default::default()
                });
            }
        };
        let missing = wanted.iter().filter(|p| !principal.may(p));
        Ok(proto::VerifyTokenResponse {
            active: true,
            missing_permissions: missing.map(ToString::to_string).collect(),
            principal: Some(proto::Principal {
                kind: principal.kind.as_str().to_owned(),
                subject: principal.subject.to_string(),
                tenant_id: principal.tenant.to_string(),
                session_id: principal.session.as_deref().unwrap_or_default().to_owned(),
                roles: principal.roles.to_vec(),
                scopes: principal.scopes.to_vec(),
                aal: principal.aal.into(),
            }),
            expires_at,
            reason: String::new(),
        })
    }

    /// The principal behind a person's token or an API key. Credentials of services are between them and
    /// the door.
    async fn find(
        &self,
        cx: &Context,
        asked: &proto::VerifyTokenRequest,
    ) -> std::result::Result<(Arc<portico_base::Principal>, Option<ProtoTimestamp>), Denied> {
        let token = &*asked.token;
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(Denied("malformed"));
        }
        if token.starts_with(API_KEY) {
            let source = self.credentials.source(token).ok_or(Denied("unknown"))?;
            if let Some(reading) = source.load(token)
                && tokio::time::timeout(PATIENCE, reading).await.is_err()
            {
                return Err(Denied::REVOCATIONS_STALE);
            }
            let principal = source.find(token).ok_or(Denied("unknown"))?;
            let bounds = source.bounds(&principal);
            let reaches =
                bounds.is_none_or(|b| asked.audience.is_empty() || b.reaches(&asked.audience));
            if !reaches {
                return Err(Denied("audience"));
            }
            return Ok((principal, None));
        }
        let verified = introspect::verify(&self.core, cx, token)?;
        if !asked.audience.is_empty() && !audiences(token).contains(&asked.audience) {
            return Err(Denied("audience"));
        }
        let ends = ProtoTimestamp {
            seconds: verified.expires_s,
            nanos: 0,
        };
        Ok((verified.principal, Some(ends)))
    }

    async fn refresh(
        &self,
        cx: &Context,
        asked: proto::RefreshTokenRequest,
    ) -> Result<proto::RefreshTokenResponse> {
        introspect::need_service(cx, TOKEN_INTROSPECT)?;
        // The client's network, not that of the service which asks for it.
        let mut cx = cx.clone();
        cx.caller.address = match &*asked.ip {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| Error::field("ip", "malformed", "must be an address or empty"))?,
            ),
        };
        let agent: String = asked.user_agent.chars().take(200).collect();
        cx.caller.agent = (!agent.is_empty()).then(|| Arc::from(agent));
        let wish = Wish {
            token: Secret::from(asked.refresh_token),
            device_secret: (!asked.device_secret.is_empty())
                .then(|| Secret::from(asked.device_secret)),
            fingerprint: std::collections::BTreeMap::new(),
            cookie: false,
        };
        let tokens = refresh::refresh(&self.core, &cx, &wish).await?;
        Ok(proto::RefreshTokenResponse {
            access_token: tokens.access_token.expose().clone(),
            expires_in_s: tokens.expires_in,
            refresh_token: tokens.refresh_token.expose().clone(),
            refresh_expires_in_s: tokens.refresh_expires_in,
            session_id: tokens.session_id.to_string(),
            device_id: tokens.device_id,
        })
    }

    async fn revoke(&self, cx: &Context, asked: proto::RevokeTokenRequest) -> Result<()> {
        use proto::RevokeScope::{All, Others, Session, Unspecified};
        let which = match proto::RevokeScope::try_from(asked.scope) {
            Ok(Unspecified | Session) => LogOut::This,
            Ok(Others) => LogOut::Others,
            Ok(All) => LogOut::All,
            Err(_) => return Err(Error::field("scope", "unknown", "there is no such scope")),
        };
        let target = match asked.target {
            Some(proto::revoke_token_request::Target::Token(token)) => {
                Target::Token(Secret::from(token))
            }
            Some(proto::revoke_token_request::Target::SessionId(id)) => {
                Target::Session(parsed("session_id", &id)?)
            }
            None => {
                return Err(Error::field(
                    "target",
                    "missing",
                    "a token or a session is needed",
                ));
            }
        };
        introspect::revoke(&self.core, cx, &target, which).await
    }

    async fn end_device(
        &self,
        cx: &Context,
        asked: &proto::RevokeDeviceRequest,
    ) -> Result<Vec<Uuid>> {
        let user = parsed("user_id", &asked.user_id)?;
        let device = parsed("device_id", &asked.device_id)?;
        introspect::revoke_device(&self.core, cx, user, device).await
    }
}

type Event = proto::WatchRevocationsResponse;

/// A stream of revocations: a position in the log, and what was read from there.
struct Watch {
    core: Arc<Core>,
    call: Call,
    /// The tenant that the caller may hear of; nothing for all.
    only: Option<Uuid>,
    seq: u64,
    position: watch::Receiver<u64>,
    waiting: VecDeque<Revocation>,
    /// The first reading is not through yet.
    snapshot: bool,
    said: Instant,
    _seat: Seat,
}

impl Watch {
    async fn next(&mut self) -> std::result::Result<Event, Status> {
        use proto::watch_revocations_response::Event as Told;
        let told = loop {
            while let Some(revocation) = self.waiting.pop_front() {
                self.seq = self.seq.max(revocation.seq);
                if let Some(told) = self.told(&revocation) {
                    self.said = Instant::now();
                    return Ok(Event {
                        event: Some(Told::Revocation(told)),
                    });
                }
            }
            // Marked as seen before the reading: what is committed during it wakes the next one.
            let head = *self.position.borrow_and_update();
            if self.snapshot || head > self.seq {
                let read = self.read().await.map_err(|error| self.call.fail(&error))?;
                if read {
                    continue;
                }
                // The edge knows of more than means something by now.
                self.seq = self.seq.max(head);
                if std::mem::take(&mut self.snapshot) {
                    break Told::SnapshotEnd(proto::SnapshotEnd { seq: self.seq });
                }
            }
            let quiet = tokio::time::sleep_until(self.said + KEEP_ALIVE);
            tokio::select! {
                changed = self.position.changed() => if changed.is_err() {
                    return Err(Status::unavailable("this process is stopping, call again"));
                },
                () = quiet => break Told::KeepAlive(proto::KeepAlive { seq: self.seq }),
            }
        };
        self.said = Instant::now();
        Ok(Event { event: Some(told) })
    }

    async fn read(&mut self) -> Result<bool> {
        let (conn, now) = (self.core.db.reader(), self.core.clock.now());
        let rows = revocations::after(conn, self.seq, now, BATCH).await?;
        self.waiting.extend(rows);
        Ok(!self.waiting.is_empty())
    }

    /// What the caller is told of a row; nothing when it is not for them, or means nothing outside.
    fn told(&self, r: &Revocation) -> Option<proto::Revocation> {
        let kind = match r.kind {
            Kind::User => proto::RevocationKind::User,
            Kind::Tenant => proto::RevocationKind::Tenant,
            Kind::Global => proto::RevocationKind::Global,
            Kind::Session => proto::RevocationKind::Session,
            Kind::ApiKey => proto::RevocationKind::ApiKey,
            Kind::SigningKey => proto::RevocationKind::SigningKey,
            Kind::Roles | Kind::Tenants => return None,
        };
        let everybodys = matches!(r.kind, Kind::Global | Kind::SigningKey);
        if self.only.is_some_and(|only| only != r.tenant) && !everybodys {
            return None;
        }
        Some(proto::Revocation {
            seq: r.seq,
            kind: kind.into(),
            tenant_id: r.tenant.to_string(),
            subject: r.subject.clone(),
            min: r.min,
            cause: r.cause.clone(),
            at: Some(stamp(r.at)),
            until: Some(stamp(r.until)),
        })
    }
}

/// A watcher's place among [`WATCHERS`].
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let seat = Self(Arc::clone(taken));
        (taken.fetch_add(1, Ordering::Relaxed) < WATCHERS).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Services of the house and plug-ins of the first tenants serve everybody; others hear of their own.
fn only_tenant(cx: &Context) -> Option<Uuid> {
    let who = cx.principal();
    let services = matches!(who.kind, PrincipalKind::Service | PrincipalKind::Instance);
    let of_the_house = [id::TENANT_SYSTEM, id::TENANT_DEFAULT].contains(&who.tenant);
    (!(scope::acts_for_all(who) || services && of_the_house)).then_some(who.tenant)
}

/// The audiences of a token whose signature was verified before.
fn audiences(token: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Aud {
        aud: Vec<String>,
    }
    let payload = token.split('.').nth(1).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    serde_json::from_slice::<Aud>(&bytes)
        .map(|claims| claims.aud)
        .unwrap_or_default()
}

fn parsed(field: &str, text: &str) -> Result<Uuid> {
    Uuid::parse_str(text).map_err(|_| Error::field(field, "malformed", "must be a UUID"))
}

fn stamp(at: Timestamp) -> ProtoTimestamp {
    ProtoTimestamp {
        seconds: at.timestamp(),
        nanos: i32::try_from(at.timestamp_subsec_nanos()).unwrap_or(0),
    }
}
