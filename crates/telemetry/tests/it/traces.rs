//! Spans on their way out: to a collector that decodes what it gets, over gRPC and HTTP, and to nobody.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Wire;
use portico_base::{Secret, SeededRandom};
use portico_telemetry::logs::{LogContext, in_scope};
use portico_telemetry::metrics::{Format, Registry};
use portico_telemetry::trace::{
    self, ExportError, Link, OtlpExporter, OtlpOptions, OtlpProtocol, Span, SpanExporter, SpanId,
    SpanKind, SpanStatus, TraceId, TraceOptions, Tracer,
};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

type Received = (Option<String>, ExportTraceServiceRequest);

struct Collector(mpsc::Sender<Received>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let key = request
            .metadata()
            .get("x-key")
            .map(|v| v.to_str().unwrap().to_owned());
        let _ = self.0.send((key, request.into_inner())).await;
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn grpc_collector() -> (SocketAddr, mpsc::Receiver<Received>) {
    let (sender, receiver) = mpsc::channel(16);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let service = TraceServiceServer::new(Collector(sender));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    (address, receiver)
}

/// Answers the statuses given, then 200 for ever; sends on what it took with 200.
async fn http_collector(statuses: &'static [u16]) -> (SocketAddr, mpsc::Receiver<Received>) {
    let (sender, receiver) = mpsc::channel(16);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let left = Arc::new(std::sync::Mutex::new(statuses.iter()));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (sender, left) = (sender.clone(), Arc::clone(&left));
            let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
                let (sender, left) = (sender.clone(), Arc::clone(&left));
                async move {
                    assert_eq!(request.uri().path(), "/v1/traces");
                    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                    let key = request
                        .headers()
                        .get("x-key")
                        .map(|v| v.to_str().unwrap().to_owned());
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let status = left.lock().unwrap().next().copied().unwrap_or(200);
                    if status == 200 {
                        let message = ExportTraceServiceRequest::decode(body).unwrap();
                        let _ = sender.send((key, message)).await;
                    }
                    let answer = hyper::Response::builder().status(status);
                    Ok::<_, Infallible>(answer.body(Empty::<Bytes>::new()).unwrap())
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (address, receiver)
}

struct Running {
    tracer: Tracer,
    registry: Registry,
    stop: CancellationToken,
    driver: tokio::task::JoinHandle<()>,
}

fn run(address: SocketAddr, protocol: OtlpProtocol, options: &TraceOptions) -> Running {
    let exporter = OtlpExporter::new(OtlpOptions {
        endpoint: format!("http://{address}"),
        protocol,
        headers: vec![("x-key".to_owned(), Secret::from("s3cr3t"))],
        timeout: Duration::from_secs(2),
        replica: "r1".to_owned(),
        version: "1.0.0".to_owned(),
        ..OtlpOptions::default()
    })
    .unwrap();
    assert!(!format!("{exporter:?}").contains("s3cr3t"));
    let registry = Registry::default();
    let random = Arc::new(SeededRandom::new(3));
    let (tracer, driver) = Tracer::new(options, vec![Arc::new(exporter)], &registry, random);
    let stop = CancellationToken::new();
    let driver = tokio::spawn(driver.run(stop.clone()));
    Running {
        tracer,
        registry,
        stop,
        driver,
    }
}

impl Running {
    fn count(&self, result: &str) -> u64 {
        let text = self.registry.render(Format::Prometheus);
        let name = format!("portico_trace_spans_total{{exporter=\"otlp\",result=\"{result}\"}} ");
        text.lines()
            .find_map(|l| l.strip_prefix(&name))
            .unwrap()
            .parse()
            .unwrap()
    }
}

fn quick() -> TraceOptions {
    TraceOptions {
        interval: Duration::from_millis(5),
        ..TraceOptions::default()
    }
}

fn span(seed: u64) -> Span {
    let random = SeededRandom::new(seed);
    let trace_id = TraceId::random(&random);
    let mut span = Span::new(
        trace_id,
        SpanId::random(&random),
        "gateway",
        "GET /api/{service}",
        1_000,
    );
    span.parent = Some(SpanId::random(&random));
    span.kind = SpanKind::Server;
    span.end_ns = 5_000;
    span.status = SpanStatus::Error("timeout".into());
    span.set("http.response.status_code", 504_u16);
    span.set("server.address", "api.example.com");
    span.set("portico.retried", true);
    span.set("load", 0.5);
    span.links.push(Link {
        trace_id,
        span_id: SpanId::random(&random),
    });
    span
}

fn check(received: &Received) {
    let (key, request) = received;
    assert_eq!(key.as_deref(), Some("s3cr3t"));
    let resource = &request.resource_spans[0];
    let attributes = &resource.resource.as_ref().unwrap().attributes;
    let named = |name: &str| {
        let found = attributes.iter().find(|a| a.key == name).unwrap();
        found.value.clone().unwrap().value.unwrap()
    };
    assert_eq!(
        named("service.name"),
        Wire::StringValue("portico".to_owned())
    );
    assert_eq!(
        named("service.instance.id"),
        Wire::StringValue("r1".to_owned())
    );
    let scope = &resource.scope_spans[0];
    assert_eq!(scope.scope.as_ref().unwrap().name, "gateway");
    let (wire, ours) = (&scope.spans[0], span(1));
    assert_eq!(wire.trace_id, ours.trace_id.as_bytes());
    assert_eq!(wire.span_id, ours.span_id.as_bytes());
    assert_eq!(wire.parent_span_id, ours.parent.unwrap().as_bytes());
    assert_eq!(
        (wire.start_time_unix_nano, wire.end_time_unix_nano),
        (1_000, 5_000)
    );
    assert_eq!((wire.name.as_str(), wire.kind), ("GET /api/{service}", 2));
    let status = wire.status.as_ref().unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "timeout"));
    let values: Vec<Wire> = wire
        .attributes
        .iter()
        .map(|a| a.value.clone().unwrap().value.unwrap())
        .collect();
    let text = Wire::StringValue("api.example.com".to_owned());
    assert_eq!(
        values,
        [
            Wire::IntValue(504),
            text,
            Wire::BoolValue(true),
            Wire::DoubleValue(0.5)
        ]
    );
    assert_eq!(wire.links[0].span_id, ours.links[0].span_id.as_bytes());
}

#[tokio::test]
async fn a_collector_reads_our_spans_over_grpc() {
    let (address, mut received) = grpc_collector().await;
    let running = run(address, OtlpProtocol::Grpc, &quick());
    running.tracer.submit(span(1));
    check(&received.recv().await.unwrap());
    // What is submitted last still leaves when the process stops.
    running.tracer.submit(span(2));
    running.stop.cancel();
    assert_eq!(received.recv().await.unwrap().1.resource_spans.len(), 1);
    running.driver.await.unwrap();
}

#[tokio::test]
async fn a_collector_reads_our_spans_over_http_also_at_the_second_try() {
    let (address, mut received) = http_collector(&[503]).await;
    let running = run(address, OtlpProtocol::Http, &quick());
    running.tracer.submit(span(1));
    check(&received.recv().await.unwrap());
    running.stop.cancel();
    running.driver.await.unwrap();
}

#[tokio::test]
async fn a_refused_batch_is_given_up_and_counted() {
    let (address, mut received) = http_collector(&[400]).await;
    let options = TraceOptions {
        batch: 1,
        ..quick()
    };
    let running = run(address, OtlpProtocol::Http, &options);
    running.tracer.submit(span(7));
    running.tracer.submit(span(1));
    check(&received.recv().await.unwrap());
    assert_eq!(running.count("failed"), 1);
    running.stop.cancel();
    running.driver.await.unwrap();
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_is_not_there() {
    // A port that nobody listens on: taken and given back.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::Http] {
        let running = run(address, protocol, &quick());
        let begin = Instant::now();
        for seed in 0..20_000 {
            running.tracer.submit(span(seed));
        }
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "only the work of making them"
        );
        assert!(running.count("dropped") >= 15_000, "the queue is bounded");
        running.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), running.driver)
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn without_exporters_nothing_is_made_or_kept() {
    let tracer = Tracer::disabled();
    assert!(!tracer.is_enabled());
    tracer.submit(span(1));
    let random = Arc::new(SeededRandom::new(1));
    let (tracer, driver) = Tracer::new(
        &TraceOptions::default(),
        Vec::new(),
        &Registry::default(),
        random,
    );
    assert!(!tracer.is_enabled());
    driver.run(CancellationToken::new()).await;
}

#[test]
fn wrong_options_are_told() {
    let new = |endpoint: &str, header: &str, value: &str| {
        [OtlpProtocol::Grpc, OtlpProtocol::Http].map(|protocol| {
            OtlpExporter::new(OtlpOptions {
                endpoint: endpoint.to_owned(),
                protocol,
                headers: vec![(header.to_owned(), Secret::from(value))],
                ..OtlpOptions::default()
            })
        })
    };
    for (endpoint, header, value) in [
        ("collector:4317", "a", "b"),
        ("ftp://x", "a", "b"),
        ("http://x", "a b", "b"),
        ("http://x", "a", "b\n"),
    ] {
        for outcome in new(endpoint, header, value) {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains("OTLP") && !error.contains("b\n"), "{error}");
        }
    }
    for outcome in new("https://collector.example.com:4317", "authorization", "x") {
        assert!(outcome.is_ok());
    }
}

/// Keeps spans, as the built-in store will.
struct Store(mpsc::UnboundedSender<Arc<Span>>);

impl SpanExporter for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    fn export<'a>(
        &'a self,
        batch: &'a [Arc<Span>],
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), ExportError>> + Send + 'a>> {
        for span in batch {
            let _ = self.0.send(Arc::clone(span));
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

#[tokio::test]
async fn work_within_a_kept_request_leaves_spans_below_it() {
    let (sender, mut spans) = mpsc::unbounded_channel();
    let random = Arc::new(SeededRandom::new(1));
    let exporters: Vec<Arc<dyn SpanExporter>> = vec![Arc::new(Store(sender))];
    let (tracer, driver) = Tracer::new(&quick(), exporters, &Registry::default(), random);
    let stop = CancellationToken::new();
    let driver = tokio::spawn(driver.run(stop.clone()));
    let request = span(1);
    let context = |tracer| {
        Arc::new(LogContext {
            trace_id: Some(request.trace_id),
            span_id: Some(request.span_id),
            tracer,
            ..LogContext::default()
        })
    };
    let work = || async {
        let outer = trace::start("music", "scan", SpanKind::Internal);
        outer
            .around(async {
                let mut inner = trace::start("redis", "get", SpanKind::Client);
                inner.set("db.system.name", "redis");
                inner.fail("timed out");
                inner.is_recorded()
            })
            .await
    };
    assert!(!work().await, "outside of a request");
    assert!(
        !in_scope(context(None), work()).await,
        "its trace is not kept"
    );
    assert!(in_scope(context(Some(tracer)), work()).await);
    let (inner, outer) = (spans.recv().await.unwrap(), spans.recv().await.unwrap());
    assert_eq!((inner.name.as_ref(), outer.name.as_ref()), ("get", "scan"));
    assert_eq!(inner.parent, Some(outer.span_id));
    assert_eq!(outer.parent, Some(request.span_id));
    assert_eq!(inner.trace_id, request.trace_id);
    assert_eq!(inner.status, SpanStatus::Error("timed out".into()));
    assert!(outer.end_ns >= inner.end_ns && inner.start_ns >= outer.start_ns);
    stop.cancel();
    driver.await.unwrap();
    assert!(spans.try_recv().is_err());
}
