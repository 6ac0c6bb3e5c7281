//! OTLP 1.x exporter over gRPC or HTTP/protobuf (opentelemetry.io/docs/specs/otlp). The only place that knows OpenTelemetry's types.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as wire;
use portico_base::Secret;
use prost::Message as _;
use tokio::sync::OnceCell;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::span::{Span, SpanKind, SpanStatus, Value};
use super::tracer::{ExportError, SpanExporter};

/// How the collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtlpProtocol {
    /// gRPC, port 4317 by custom.
    #[default]
    Grpc,
    /// HTTP with protobuf bodies, port 4318 by custom.
    Http,
}

/// Where the collector is and who we are.
#[derive(Debug, Clone)]
pub struct OtlpOptions {
    /// `http://host:4317` or `https://…`; for HTTP `/v1/traces` is added when there is no path.
    pub endpoint: String,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// Further headers, for instance with a credential.
    pub headers: Vec<(String, Secret<String>)>,
    /// Longest wait for one batch.
    pub timeout: Duration,
    /// `service.name` of the resource.
    pub service: String,
    /// `service.instance.id` of the resource.
    pub replica: String,
    /// `service.version` of the resource.
    pub version: String,
}

impl Default for OtlpOptions {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            protocol: OtlpProtocol::default(),
            headers: Vec::new(),
            timeout: Duration::from_secs(5),
            service: "portico".to_owned(),
            replica: String::new(),
            version: String::new(),
        }
    }
}

/// What is wrong with the options.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OtlpConfigError(String);

/// Sends spans to an OpenTelemetry collector.
pub struct OtlpExporter {
    options: OtlpOptions,
    resource: Resource,
    transport: Transport,
}

enum Transport {
    Grpc {
        endpoint: Box<Endpoint>,
        headers: Vec<(AsciiMetadataKey, AsciiMetadataValue)>,
        // Made at the first batch, because a channel needs a runtime to live in.
        channel: OnceCell<Channel>,
    },
    Http {
        url: String,
        client: reqwest::Client,
    },
}

impl std::fmt::Debug for OtlpExporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtlpExporter")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl OtlpExporter {
    /// Checks the options; connects only when there is something to send.
    ///
    /// # Errors
    /// Says which option is wrong: the endpoint or a header.
    pub fn new(options: OtlpOptions) -> Result<Self, OtlpConfigError> {
        let uri: http::Uri = options
            .endpoint
            .parse()
            .map_err(|_| OtlpConfigError("the OTLP endpoint is no URL".to_owned()))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(OtlpConfigError(
                "the OTLP endpoint must begin with http:// or https://".to_owned(),
            ));
        }
        let transport = match options.protocol {
            OtlpProtocol::Grpc => grpc(&options, &uri)?,
            OtlpProtocol::Http => http(&options, &uri)?,
        };
        let resource = Resource {
            attributes: [
                ("service.name", &options.service),
                ("service.instance.id", &options.replica),
                ("service.version", &options.version),
            ]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| key_value(key, any_value::Value::StringValue(value.clone())))
            .collect(),
            ..Resource::default()
        };
        Ok(Self {
            options,
            resource,
            transport,
        })
    }

    fn request(&self, batch: &[Arc<Span>]) -> ExportTraceServiceRequest {
        let mut by_scope: BTreeMap<&'static str, Vec<wire::Span>> = BTreeMap::new();
        for span in batch {
            by_scope.entry(span.scope).or_default().push(encode(span));
        }
        let scope_spans = by_scope
            .into_iter()
            .map(|(scope, spans)| wire::ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: scope.to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans,
                schema_url: String::new(),
            })
            .collect();
        ExportTraceServiceRequest {
            resource_spans: vec![wire::ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans,
                schema_url: String::new(),
            }],
        }
    }

    async fn send(&self, batch: &[Arc<Span>]) -> Result<(), ExportError> {
        let request = self.request(batch);
        match &self.transport {
            Transport::Grpc {
                endpoint,
                headers,
                channel,
            } => {
                let connect = || async { endpoint.connect_lazy() };
                let channel = channel.get_or_init(connect).await.clone();
                let mut request = tonic::Request::new(request);
                for (key, value) in headers {
                    request.metadata_mut().insert(key.clone(), value.clone());
                }
                let answer = TraceServiceClient::new(channel).export(request).await;
                let answer = answer.map_err(|status| grpc_error(&status))?;
                report_partial(answer.into_inner().partial_success);
                Ok(())
            }
            Transport::Http { url, client } => {
                let sending = client.post(url).body(request.encode_to_vec()).send();
                let answer = sending
                    .await
                    .map_err(|e| ExportError::Unavailable(e.without_url().to_string()))?;
                let status = answer.status();
                if status.is_success() {
                    return Ok(());
                }
                let text = format!("status {}", status.as_u16());
                // The statuses that OTLP/HTTP allows to try again.
                if matches!(status.as_u16(), 429 | 502 | 503 | 504) {
                    Err(ExportError::Unavailable(text))
                } else {
                    Err(ExportError::Refused(text))
                }
            }
        }
    }
}

impl SpanExporter for OtlpExporter {
    fn name(&self) -> &'static str {
        "otlp"
    }

    fn export<'a>(
        &'a self,
        batch: &'a [Arc<Span>],
    ) -> Pin<Box<dyn Future<Output = Result<(), ExportError>> + Send + 'a>> {
        Box::pin(async move {
            tokio::time::timeout(self.options.timeout, self.send(batch))
                .await
                .unwrap_or_else(|_| Err(ExportError::Unavailable("no answer in time".to_owned())))
        })
    }
}

fn grpc(options: &OtlpOptions, uri: &http::Uri) -> Result<Transport, OtlpConfigError> {
    let wrong = |what: &dyn std::fmt::Display| OtlpConfigError(format!("OTLP over gRPC: {what}"));
    let mut endpoint = Endpoint::from_shared(options.endpoint.clone())
        .map_err(|e| wrong(&e))?
        .connect_timeout(options.timeout);
    if uri.scheme_str() == Some("https") {
        let tls = ClientTlsConfig::new().with_enabled_roots();
        endpoint = endpoint.tls_config(tls).map_err(|e| wrong(&e))?;
    }
    let mut headers = Vec::new();
    for (name, value) in &options.headers {
        let key = AsciiMetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes())
            .map_err(|_| wrong(&format_args!("`{name}` is no header name")))?;
        let value = AsciiMetadataValue::try_from(value.expose().as_str())
            .map_err(|_| wrong(&format_args!("the value of header `{name}` is malformed")))?;
        headers.push((key, value));
    }
    Ok(Transport::Grpc {
        endpoint: Box::new(endpoint),
        headers,
        channel: OnceCell::new(),
    })
}

fn http(options: &OtlpOptions, uri: &http::Uri) -> Result<Transport, OtlpConfigError> {
    let wrong = |what: &dyn std::fmt::Display| OtlpConfigError(format!("OTLP over HTTP: {what}"));
    let mut headers = http::HeaderMap::new();
    for (name, value) in &options.headers {
        let key = http::HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| wrong(&format_args!("`{name}` is no header name")))?;
        let mut value = http::HeaderValue::from_str(value.expose())
            .map_err(|_| wrong(&format_args!("the value of header `{name}` is malformed")))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    let protobuf = http::HeaderValue::from_static("application/x-protobuf");
    headers.insert(http::header::CONTENT_TYPE, protobuf);
    let client = reqwest::Client::builder()
        .timeout(options.timeout)
        .default_headers(headers)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| wrong(&e))?;
    let base = options.endpoint.trim_end_matches('/');
    let url = match uri.path() {
        "" | "/" => format!("{base}/v1/traces"),
        _ => options.endpoint.clone(),
    };
    Ok(Transport::Http { url, client })
}

fn grpc_error(status: &tonic::Status) -> ExportError {
    use tonic::Code;
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        // The codes that OTLP/gRPC allows to try again.
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss
        | Code::ResourceExhausted => ExportError::Unavailable(text),
        _ => ExportError::Refused(text),
    }
}

fn report_partial(
    partial: Option<opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess>,
) {
    if let Some(partial) = partial.filter(|p| p.rejected_spans > 0) {
        let (spans, err) = (partial.rejected_spans, partial.error_message);
        tracing::warn!(spans, err, "the collector rejected spans of a batch");
    }
}

fn encode(span: &Span) -> wire::Span {
    const SAMPLED: u32 = 1;
    wire::Span {
        trace_id: span.trace_id.as_bytes().to_vec(),
        span_id: span.span_id.as_bytes().to_vec(),
        trace_state: span.state.as_str().to_owned(),
        parent_span_id: span
            .parent
            .map(|id| id.as_bytes().to_vec())
            .unwrap_or_default(),
        flags: SAMPLED,
        name: span.name.to_string(),
        kind: kind(span.kind) as i32,
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns.max(span.start_ns),
        attributes: span
            .attributes
            .iter()
            .map(|(key, value)| key_value(key, encode_value(value)))
            .collect(),
        dropped_attributes_count: span.dropped_attributes,
        links: span
            .links
            .iter()
            .map(|link| wire::span::Link {
                trace_id: link.trace_id.as_bytes().to_vec(),
                span_id: link.span_id.as_bytes().to_vec(),
                ..wire::span::Link::default()
            })
            .collect(),
        status: encode_status(&span.status),
        ..wire::Span::default()
    }
}

fn kind(kind: SpanKind) -> wire::span::SpanKind {
    match kind {
        SpanKind::Internal => wire::span::SpanKind::Internal,
        SpanKind::Server => wire::span::SpanKind::Server,
        SpanKind::Client => wire::span::SpanKind::Client,
        SpanKind::Producer => wire::span::SpanKind::Producer,
        SpanKind::Consumer => wire::span::SpanKind::Consumer,
    }
}

fn encode_status(status: &SpanStatus) -> Option<wire::Status> {
    let (code, message) = match status {
        SpanStatus::Unset => return None,
        SpanStatus::Ok => (wire::status::StatusCode::Ok, String::new()),
        SpanStatus::Error(why) => (wire::status::StatusCode::Error, why.to_string()),
    };
    Some(wire::Status {
        message,
        code: code as i32,
    })
}

fn encode_value(value: &Value) -> any_value::Value {
    match value {
        Value::Text(text) => any_value::Value::StringValue(text.to_string()),
        Value::Shared(text) => any_value::Value::StringValue(text.to_string()),
        Value::Int(n) => any_value::Value::IntValue(*n),
        Value::Float(n) => any_value::Value::DoubleValue(*n),
        Value::Bool(b) => any_value::Value::BoolValue(*b),
    }
}

fn key_value(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
