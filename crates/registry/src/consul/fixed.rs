//! Answers about the cluster as such: one node, one datacenter, always a leader (C§3, C§11).

use serde_json::{Value, json};

use super::access::{READ, REGISTER, need};
use super::reply::{Answer, Reply, refuse};
use super::request::Request;
use super::state::ConsulState;
use super::views::node_id;

/// Where a real server would speak Raft.
const LEADER: &str = "127.0.0.1:8300";
/// The version of Consul whose API this is.
const VERSION: &str = "1.8.7";

/// `status/leader`.
pub(super) fn leader(state: &ConsulState, r: &Request) -> Answer {
    r.datacenter(&state.options.datacenter)?;
    Ok(r.json(LEADER))
}

/// `status/peers`.
pub(super) fn peers(state: &ConsulState, r: &Request) -> Answer {
    r.datacenter(&state.options.datacenter)?;
    Ok(r.json(&[LEADER]))
}

fn coordinate() -> Value {
    json!({"Vec": vec![0.0; 8], "Error": 1.5, "Adjustment": 0.0, "Height": 1e-5})
}

fn member(state: &ConsulState, name: &str) -> Value {
    let dc = &*state.options.datacenter;
    json!({
        "Name": name, "Addr": "127.0.0.1", "Port": 8301,
        "Tags": {"acls": "0", "bootstrap": "1", "build": VERSION, "dc": dc, "id": node_id(&state.core.host),
            "port": "8300", "raft_vsn": "3", "role": "consul", "segment": "", "vsn": "2", "vsn_max": "3", "vsn_min": "2"},
        "Status": 1, "ProtocolMin": 1, "ProtocolMax": 5, "ProtocolCur": 2,
        "DelegateMin": 2, "DelegateMax": 5, "DelegateCur": 4,
    })
}

/// `agent/self`.
pub(super) fn me(state: &ConsulState, r: &Request) -> Answer {
    need(r, &READ)?;
    let host = &*state.core.host;
    let dc = &*state.options.datacenter;
    let index = state.core.model.read().index.max(1).to_string();
    let (services, checks) = {
        let model = state.core.model.read();
        let view = state.view(&model, r.cx.tenant());
        let services = view.of_agent();
        let checks: usize = services.iter().map(|s| view.checks_of(*s).len()).sum();
        (services.len().to_string(), checks.to_string())
    };
    Ok(r.json(&json!({
        "Config": {"Datacenter": dc, "NodeName": host, "NodeID": node_id(host), "Revision": "portico", "Server": true, "Version": VERSION},
        "DebugConfig": {"Datacenter": dc, "NodeName": host, "NodeID": node_id(host), "ServerMode": true, "EnableRemoteScriptChecks": false, "EnableLocalScriptChecks": false},
        "Coord": coordinate(),
        "Member": member(state, host),
        "Stats": {
            "agent": {"check_monitors": "0", "check_ttls": "0", "checks": checks, "services": services},
            "build": {"prerelease": "", "revision": "portico", "version": VERSION},
            "consul": {"acl": "disabled", "bootstrap": "true", "known_datacenters": "1", "leader": "true", "leader_addr": LEADER, "server": "true"},
            "raft": {"applied_index": index, "commit_index": index, "last_log_index": index, "num_peers": "0", "state": "Leader", "term": "1"},
            "runtime": {"arch": std::env::consts::ARCH, "os": std::env::consts::OS},
            "serf_lan": {"members": "1", "failed": "0", "left": "0"},
            "serf_wan": {"members": "1", "failed": "0", "left": "0"},
        },
        "Meta": {"consul-network-segment": ""},
        "xDS": {"SupportedProxies": {}},
    })))
}

/// `agent/members`.
pub(super) fn members(state: &ConsulState, r: &Request) -> Answer {
    need(r, &READ)?;
    let host = &*state.core.host;
    let wan = r.params.has("wan");
    let name = if wan {
        format!("{host}.{}", state.options.datacenter)
    } else {
        host.to_owned()
    };
    let mut member = member(state, &name);
    if wan {
        member["Port"] = json!(8302);
    }
    Ok(r.json(&[member]))
}

/// `agent/metrics`.
pub(super) fn metrics(state: &ConsulState, r: &Request) -> Answer {
    need(r, &READ)?;
    if r.params.text("format") == "prometheus" {
        // What RG-48 adds belongs to whoever may see the whole process.
        return refuse(
            415,
            "Prometheus is not enabled since its retention time is not positive",
        );
    }
    let figures = {
        let model = state.core.model.read();
        let view = state.view(&model, r.cx.tenant());
        let services = view.of_agent().len();
        let nodes = view.node_names().len();
        [
            ("consul.catalog.services", services),
            ("consul.catalog.nodes", nodes),
        ]
    };
    let gauges: Vec<Value> = figures
        .iter()
        .map(|(name, value)| json!({"Name": name, "Value": value, "Labels": {}}))
        .collect();
    Ok(r.json(&json!({
        "Timestamp": r.cx.now().format("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        "Gauges": gauges, "Points": [], "Counters": [], "Samples": [],
    })))
}

/// `agent/reload`: definitions come through the API alone, so that there is no file to read again.
pub(super) fn reload(r: &Request) -> Answer {
    need(r, &REGISTER)?;
    Ok(Reply::empty())
}

/// `agent/monitor`: the log is not streamed here; a wrong level is told as Consul tells it.
pub(super) fn monitor(r: &Request) -> Answer {
    need(r, &READ)?;
    match r.params.text("loglevel").to_ascii_lowercase().as_str() {
        "" | "trace" | "debug" | "info" | "warn" | "err" | "error" => {
            refuse(403, "Permission denied")
        }
        other => refuse(400, format!("Unknown log level: {other}")),
    }
}

/// `agent/force-leave/:node`: nobody gossips here.
pub(super) fn force_leave(r: &Request, node: &str) -> Answer {
    need(r, &REGISTER)?;
    refuse(500, format!("agent: No node found with name '{node}'"))
}

/// `coordinate/nodes` and `coordinate/node/:node`.
pub(super) fn coordinates(state: &ConsulState, r: &Request, only: Option<&str>) -> Answer {
    need(r, &READ)?;
    r.datacenter(&state.options.datacenter)?;
    let host = &*state.core.host;
    if only.is_some_and(|node| node != host) {
        return Ok(Reply::bare(http::StatusCode::NOT_FOUND));
    }
    let reply = r.json(&json!([{"Node": host, "Segment": "", "Coord": coordinate()}]));
    Ok(super::blocking::with_index(r, reply, 1, false))
}

/// `coordinate/datacenters`.
pub(super) fn coordinate_datacenters(state: &ConsulState, r: &Request) -> Answer {
    need(r, &READ)?;
    let dc = &*state.options.datacenter;
    let node = format!("{}.{dc}", state.core.host);
    Ok(r.json(&json!([{"Datacenter": dc, "AreaID": "wan", "Coordinates": [{"Node": node, "Segment": "", "Coord": coordinate()}]}])))
}

/// `query`: there are none.
pub(super) fn queries(state: &ConsulState, r: &Request) -> Answer {
    need(r, &READ)?;
    r.datacenter(&state.options.datacenter)?;
    Ok(super::blocking::with_index(r, r.json(&[(); 0]), 1, false))
}

/// `operator/raft/configuration`.
pub(super) fn raft(state: &ConsulState, r: &Request) -> Answer {
    need(r, &READ)?;
    r.datacenter(&state.options.datacenter)?;
    let host = &*state.core.host;
    Ok(r.json(&json!({
        "Servers": [{"ID": node_id(host), "Node": host, "Address": LEADER, "Leader": true, "ProtocolVersion": "3", "Voter": true}],
        "Index": 0,
    })))
}
