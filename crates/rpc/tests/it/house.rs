//! A listener with one service that does what its request says, without generated code.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use http::uri::PathAndQuery;
use portico_base::{
    Access, ErrorKind, Fault, FieldFault, Permission, Principal, PrincipalKind, SystemClock,
    SystemRandom, id,
};
use portico_contract::credentials::{CredentialSource, Credentials};
use portico_rpc::{
    ChainOptions, Hosts, MAX_MESSAGE, Method, RpcOptions, RpcRoutes, Running, Server, call,
};
use portico_state::{Deps, State};
use portico_telemetry::metrics::Registry;
use portico_telemetry::trace::Tracer;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// What to do, and what was done.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Note {
    #[prost(string, tag = "1")]
    pub text: String,
    #[prost(bytes = "vec", tag = "2")]
    pub bytes: Vec<u8>,
}

impl Note {
    pub(crate) fn of(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            bytes: Vec::new(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("two fields are wrong")]
struct Wrong(Vec<FieldFault>);

impl Fault for Wrong {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
    fn code(&self) -> &'static str {
        "test.invalid"
    }
    fn fields(&self) -> &[FieldFault] {
        &self.0
    }
}

/// The service `test.v1.Doer`.
#[derive(Clone, Default)]
pub(crate) struct Doer {
    /// Calls that reached the method.
    pub reached: Arc<AtomicU32>,
}

impl NamedService for Doer {
    const NAME: &'static str = "test.v1.Doer";
}

type Events = Pin<Box<dyn Stream<Item = Result<Note, Status>> + Send>>;

impl Doer {
    async fn act(self, request: Request<Note>) -> Result<Response<Note>, Status> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        let call = call(&request)?;
        let note = request.into_inner();
        let caller = &call.context.caller;
        match &*note.text {
            "who" => Ok(Response::new(Note::of(&format!(
                "{} {} {} {}",
                call.context.principal().kind.as_str(),
                call.context.principal().subject,
                caller.request_id,
                caller.trace_id.as_deref().unwrap_or("-"),
            )))),
            "panic" => panic!("as asked"),
            "hang" => std::future::pending().await,
            "wrong" => Err(call.fail(&Wrong(vec![
                FieldFault::new("a", "missing", "is needed"),
                FieldFault::new("b[1]", "too_long", "at most 3"),
            ]))),
            "away" => Err(Status::unavailable("come again")),
            "big" => Ok(Response::new(Note {
                text: String::new(),
                bytes: vec![7; MAX_MESSAGE + 1],
            })),
            _ => Ok(Response::new(note)),
        }
    }

    fn watch(self, request: Request<Note>) -> Response<Events> {
        let how = request.into_inner().text;
        let events = stream::unfold(0, move |n: u32| {
            let how = how.clone();
            async move {
                match (n, &*how) {
                    (0..3, _) => Some((Ok(Note::of(&n.to_string())), n + 1)),
                    (_, "end") => None,
                    (_, "panic") => panic!("as asked"),
                    _ => std::future::pending().await,
                }
            }
        });
        Response::new(Box::pin(events))
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl tonic::codegen::Service<http::Request<Body>> for Doer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answering {
        let doer = self.clone();
        let codec = || ProstCodec::<Note, Note>::default();
        Box::pin(async move {
            let grpc = tonic::server::Grpc::new(codec());
            let mut grpc = grpc.apply_max_message_size_config(Some(MAX_MESSAGE), Some(MAX_MESSAGE));
            Ok(match request.uri().path() {
                "/test.v1.Doer/Watch" => grpc.server_streaming(Watch(doer), request).await,
                "/test.v1.Doer/Unknown" => Status::unimplemented("no such method").into_http(),
                _ => grpc.unary(Act(doer), request).await,
            })
        })
    }
}

struct Act(Doer);

impl tonic::server::UnaryService<Note> for Act {
    type Response = Note;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Note>, Status>> + Send>>;

    fn call(&mut self, request: Request<Note>) -> Self::Future {
        Box::pin(self.0.clone().act(request))
    }
}

struct Watch(Doer);

impl tonic::server::ServerStreamingService<Note> for Watch {
    type Response = Note;
    type ResponseStream = Events;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Events>, Status>> + Send>>;

    fn call(&mut self, request: Request<Note>) -> Self::Future {
        Box::pin(std::future::ready(Ok(self.0.clone().watch(request))))
    }
}

struct Tokens;

impl CredentialSource for Tokens {
    fn prefix(&self) -> &'static str {
        "tst_"
    }

    fn find(&self, token: &str) -> Option<Arc<Principal>> {
        let mut who = Principal::new(PrincipalKind::ApiKey, token, id::TENANT_DEFAULT);
        match token {
            "tst_plain" => {}
            "tst_admin" => who.permissions = Arc::from([Permission::new("test:*:*")]),
            _ => return None,
        }
        Some(Arc::new(who))
    }
}

/// A served house.
pub(crate) struct House {
    pub address: SocketAddr,
    pub running: Option<Running>,
    pub doer: Doer,
    pub metrics: Registry,
    pub ready: Arc<AtomicBool>,
}

impl House {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut RpcOptions)) -> Self {
        let metrics = Registry::default();
        let (state, _driver) = State::local(&Deps::system(&metrics));
        let credentials = Credentials::default();
        credentials.add(Arc::new(Tokens));
        let mut options = RpcOptions {
            tls: None,
            chain: ChainOptions {
                clock: Arc::new(SystemClock),
                random: Arc::new(SystemRandom),
                credentials,
                verifier: None,
                tenants: None,
                hosts: Hosts::default(),
                address_rules: None,
                limiter: state.limiter().clone(),
                metrics: metrics.clone(),
                tracer: Tracer::disabled(),
            },
            reflection: true,
            connections: 64,
        };
        change(&mut options);
        let doer = Doer::default();
        let server = Server::new(options, routes(&doer)).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ready = Arc::new(AtomicBool::new(true));
        let is_ready = Arc::clone(&ready);
        let handle = tokio::runtime::Handle::current();
        let running = server.serve(listener, &handle, move || is_ready.load(Ordering::SeqCst));
        Self {
            address,
            running: Some(running),
            doer,
            metrics,
            ready,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(self.url()).unwrap().connect_lazy()
    }

    pub(crate) async fn stop(mut self) -> usize {
        let running = self.running.take().unwrap();
        running.drain(Duration::from_secs(10)).await
    }

    /// A sample line of the metrics, whose value is compared.
    pub(crate) fn metric(&self, line: &str) -> Option<f64> {
        let text = self
            .metrics
            .render(portico_telemetry::metrics::Format::Prometheus);
        let value = text.lines().find_map(|l| l.strip_prefix(line))?;
        value.trim().parse().ok()
    }
}

/// The declared methods of the service; `Hidden` is there and not declared.
fn routes(doer: &Doer) -> RpcRoutes {
    let admin = Access::Permission(Permission::new("test:thing:write"));
    RpcRoutes::new().describe(descriptors()).add(
        doer.clone(),
        [
            Method::unary("Open", Access::Public),
            Method::unary("Known", Access::Authenticated),
            Method::unary("Admin", admin),
            Method::stream("Watch", Access::Public),
        ],
    )
}

/// What a generated service would bring.
pub(crate) fn descriptors() -> &'static [u8] {
    use prost::Message as _;
    use prost_types::{
        FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
    };
    let method = |name: &str| MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(".google.protobuf.Empty".to_owned()),
        output_type: Some(".google.protobuf.Empty".to_owned()),
        ..Default::default()
    };
    let file = FileDescriptorProto {
        name: Some("test/v1/doer.proto".to_owned()),
        package: Some("test.v1".to_owned()),
        service: vec![ServiceDescriptorProto {
            name: Some("Doer".to_owned()),
            method: ["Open", "Known", "Admin", "Watch"].map(method).to_vec(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let set = FileDescriptorSet { file: vec![file] };
    Box::leak(set.encode_to_vec().into_boxed_slice())
}

/// Calls a method of the service.
pub(crate) async fn ask(
    channel: Channel,
    method: &'static str,
    request: Request<Note>,
) -> Result<Response<Note>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(64 * 1024 * 1024);
    grpc.ready()
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;
    let codec = ProstCodec::<Note, Note>::default();
    grpc.unary(request, PathAndQuery::from_static(method), codec)
        .await
}

/// Watches.
pub(crate) async fn watch(
    channel: Channel,
    request: Request<Note>,
) -> Result<tonic::Streaming<Note>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;
    let codec = ProstCodec::<Note, Note>::default();
    let path = PathAndQuery::from_static("/test.v1.Doer/Watch");
    let response = grpc.server_streaming(request, path, codec).await?;
    Ok(response.into_inner())
}

/// A request with metadata.
pub(crate) fn with(text: &str, metadata: &[(&'static str, &str)]) -> Request<Note> {
    let mut request = Request::new(Note::of(text));
    for (key, value) in metadata {
        request.metadata_mut().insert(*key, value.parse().unwrap());
    }
    request
}
