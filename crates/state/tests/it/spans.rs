//! Calls of Redis within a kept request leave a span each (OB-11).

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portico_base::SeededRandom;
use portico_state::testing::Backend;
use portico_telemetry::logs::{LogContext, in_scope};
use portico_telemetry::metrics::Registry;
use portico_telemetry::trace::{
    ExportError, Span, SpanExporter, SpanId, TraceId, TraceOptions, Tracer,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

struct Store(mpsc::UnboundedSender<Arc<Span>>);

impl SpanExporter for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    fn export<'a>(
        &'a self,
        batch: &'a [Arc<Span>],
    ) -> Pin<Box<dyn Future<Output = Result<(), ExportError>> + Send + 'a>> {
        for span in batch {
            let _ = self.0.send(Arc::clone(span));
        }
        Box::pin(ready(Ok(())))
    }
}

#[tokio::test]
async fn a_call_of_redis_hangs_below_its_request_and_shows_no_value() {
    let Some(backend) = Backend::redis() else {
        return;
    };
    let replica = backend.replica().await;
    let (sender, mut spans) = mpsc::unbounded_channel();
    let random = Arc::new(SeededRandom::new(1));
    let options = TraceOptions {
        interval: Duration::from_millis(5),
        ..TraceOptions::default()
    };
    let exporters: Vec<Arc<dyn SpanExporter>> = vec![Arc::new(Store(sender))];
    let (tracer, driver) = Tracer::new(&options, exporters, &Registry::default(), random.clone());
    let stop = CancellationToken::new();
    let driver = tokio::spawn(driver.run(stop.clone()));
    let request = SpanId::random(&*random);
    let context = Arc::new(LogContext {
        trace_id: Some(TraceId::random(&*random)),
        span_id: Some(request),
        tracer: Some(tracer),
        ..LogContext::default()
    });
    let store = replica.state.store();
    let put = store.put("k", Bytes::from_static(b"hunter2"), Duration::from_secs(9));
    in_scope(context, put).await.unwrap();
    let span = spans.recv().await.unwrap();
    assert_eq!((span.scope, span.parent), ("redis", Some(request)));
    assert!(!format!("{span:?}").contains("hunter2"));
    stop.cancel();
    driver.await.unwrap();
}
