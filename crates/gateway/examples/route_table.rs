//! Figures of the route table (GW-18): memory, look-up, and the time of a new snapshot, by number of services.

#![expect(clippy::print_stdout, reason = "a measurement prints its result")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use portico_base::{Secret, Timestamp};
use portico_contract::directory::{
    DefaultAccess, Directory, Endpoint, Instance, InstanceState, Protocol, Service, ServiceKey,
};
use portico_contract::settings::Settings;
use portico_gateway::objects::doc::Objects;
use portico_gateway::route::build::{Builder, Input, Names};
use portico_gateway::route::host::HostKind;
use portico_gateway::route::path::normalise;
use portico_gateway::route::table::{Ask, Found, Table};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Instances and endpoints of one service.
const INSTANCES: usize = 10;
const ENDPOINTS: usize = 20;
const LOOKUPS: usize = 1_000_000;
const BUILDS: usize = 200;

fn instance(number: usize, state: InstanceState) -> Instance {
    Instance {
        id: Uuid::from_u128(number as u128 + 1),
        version: "1.0.0".into(),
        host: format!(
            "10.{}.{}.{}",
            number >> 16 & 255,
            number >> 8 & 255,
            number & 255
        )
        .into(),
        port: 8080,
        base_path: "/".into(),
        protocol: Protocol::Http1,
        tls_pin: None,
        state,
        state_reason: "".into(),
        state_since: Timestamp::default(),
        weight: 100,
        zone: "a".into(),
        node: "host".into(),
        tags: Arc::default(),
        metadata: Arc::default(),
        secret: Some(Arc::new(Secret::new(format!("pis_{number:040}")))),
        created_at: Timestamp::default(),
    }
}

fn endpoint(number: usize) -> Endpoint {
    Endpoint {
        version: None,
        method: Some("GET".into()),
        path: match number % 3 {
            0 => format!("/things-{number}").into(),
            1 => format!("/things-{number}/{{id}}").into(),
            _ => format!("/things-{number}/{{id}}/parts/*").into(),
        },
        description: "what this endpoint is for, in a few words".into(),
        is_public: number.is_multiple_of(2),
        required_roles: Arc::new([]),
        required_permissions: Arc::new([]),
        rate_limit: None,
        timeout_ms: None,
        cache: None,
        idempotency_key: false,
    }
}

fn service(number: usize, state: InstanceState) -> Arc<Service> {
    let instances = (0..INSTANCES).map(|i| {
        let state = if i == 0 { state } else { InstanceState::Ready };
        Arc::new(instance(number * INSTANCES + i, state))
    });
    Arc::new(Service {
        id: Uuid::from_u128(1 << 64 | number as u128),
        key: ServiceKey {
            tenant: None,
            name: format!("service-{number}").into(),
        },
        display_name: format!("Service {number}").into(),
        description: "".into(),
        builtin: false,
        enabled: true,
        disabled_for: Arc::default(),
        default_access: DefaultAccess::Public,
        forward_credentials: false,
        identity_statement: false,
        endpoints: (0..ENDPOINTS).map(endpoint).collect(),
        openapi_url: None,
        instances: instances.collect(),
    })
}

fn directory(seq: u64, services: &HashMap<ServiceKey, Arc<Service>>) -> Arc<Directory> {
    Arc::new(Directory {
        seq,
        services: services
            .iter()
            .map(|(k, s)| (k.clone(), Arc::clone(s)))
            .collect(),
    })
}

/// Resident memory in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|p| p.parse().ok())
        .unwrap_or(0);
    pages * 4096
}

fn percentile(times: &mut [Duration], share: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * share / 100).min(times.len() - 1)]
}

/// Finds services, and with them the declaration of the endpoint, by paths that come in no order.
fn look_up(table: &Table, count: usize) -> (f64, f64) {
    let paths: Vec<String> = (0..4096)
        .map(|i: usize| format!("/api/service-{}/things-7/{i}", i.wrapping_mul(7919) % count))
        .collect();
    let headers = HeaderMap::new();
    let run = |with_endpoint: bool| {
        let begin = Instant::now();
        for i in 0..LOOKUPS {
            let path = normalise(paths[i % paths.len()].as_bytes()).expect("a path");
            let ask = Ask {
                host: "localhost",
                kind: Some(HostKind::Whole),
                path: &path,
                query: None,
                method: &Method::GET,
                headers: &headers,
            };
            let Ok(Found::Service { named, below, .. }) = table.find(&ask) else {
                panic!("{} is not found", path.as_str());
            };
            if with_endpoint {
                let node = named.global.as_ref().expect("the service");
                black_box(node.endpoints.find(&Method::GET, below, "1.0.0").is_some());
            }
            black_box(named);
        }
        begin.elapsed().as_secs_f64() * 1e6 / LOOKUPS as f64
    };
    (run(false), run(true))
}

fn measure(count: usize) {
    let before = resident();
    let mut services: HashMap<ServiceKey, Arc<Service>> = (0..count)
        .map(|i| service(i, InstanceState::Ready))
        .map(|s| (s.key.clone(), s))
        .collect();
    let objects = Arc::new(Objects::default());
    let settings = Settings::defaults();
    let input = |seq, services: &HashMap<_, _>| Input {
        directory: directory(seq, services),
        objects: Arc::clone(&objects),
        settings: settings.clone(),
        settings_version: 1,
        now_ms: seq,
    };
    let mut builder = Builder::new(Names::default());
    let first = input(1, &services);
    let directories = resident();
    let begin = Instant::now();
    let mut table = builder.build(&first);
    let whole = begin.elapsed();
    drop(first);
    let after = resident();
    let (found, declared) = look_up(&table, count);
    // One instance of one service changes, as a registration does it.
    let mut times: Vec<Duration> = (0..BUILDS)
        .map(|i| {
            let number = i * 31 % count;
            let state = if i % 2 == 0 {
                InstanceState::Draining
            } else {
                InstanceState::Ready
            };
            let changed = service(number, state);
            services.insert(changed.key.clone(), changed);
            let next = input(i as u64 + 2, &services);
            let begin = Instant::now();
            table = builder.build(&next);
            begin.elapsed()
        })
        .collect();
    let mb = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    println!(
        "{{\"services\":{count},\"instances\":{},\"endpoints\":{},\"directory_mb\":{:.1},\"directory_and_table_mb\":{:.1},\"lookup_us\":{found:.3},\"lookup_with_endpoint_us\":{declared:.3},\"first_build_ms\":{:.2},\"next_build_p50_ms\":{:.3},\"next_build_p99_ms\":{:.3}}}",
        count * INSTANCES,
        count * ENDPOINTS,
        mb(directories.saturating_sub(before)),
        mb(after.saturating_sub(before)),
        whole.as_secs_f64() * 1e3,
        percentile(&mut times, 50).as_secs_f64() * 1e3,
        percentile(&mut times, 99).as_secs_f64() * 1e3,
    );
    drop(table);
}

fn main() {
    let counts: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|a| a.parse().ok())
        .collect();
    for count in if counts.is_empty() {
        vec![100, 1_000]
    } else {
        counts
    } {
        measure(count);
    }
}
