//! What can be selected at each endpoint.

/// The type of something that can be selected.
#[derive(Debug)]
pub(crate) enum Kind {
    Text,
    Integer,
    Bool,
    /// Texts.
    Texts,
    /// Structures; selecting through them asks whether any fits.
    List(&'static Self),
    /// Any key leads to the type.
    Map(&'static Self),
    Struct(&'static [(&'static str, Self)]),
}

const TEXT_MAP: Kind = Kind::Map(&Kind::Text);
const ADDRESS: Kind = Kind::Struct(&[("Address", Kind::Text), ("Port", Kind::Integer)]);
const ADDRESSES: Kind = Kind::Map(&ADDRESS);
const WEIGHTS: Kind = Kind::Struct(&[("Passing", Kind::Integer), ("Warning", Kind::Integer)]);
const PROXY: Kind = Kind::Struct(&[
    ("DestinationServiceName", Kind::Text),
    ("DestinationServiceID", Kind::Text),
    ("LocalServiceAddress", Kind::Text),
    ("LocalServicePort", Kind::Integer),
]);
const CONNECT: Kind = Kind::Struct(&[("Native", Kind::Bool)]);

/// `catalog/nodes`.
pub(crate) static NODES: Kind = Kind::Struct(&[
    ("ID", Kind::Text),
    ("Node", Kind::Text),
    ("Address", Kind::Text),
    ("Datacenter", Kind::Text),
    ("TaggedAddresses", TEXT_MAP),
    ("Meta", TEXT_MAP),
]);

/// `agent/services`, and the services of `catalog/node`.
pub(crate) static AGENT_SERVICES: Kind = SERVICE;
/// The services of `catalog/node` and `catalog/node-services`.
pub(crate) static NODE_SERVICES: Kind = SERVICE;

const SERVICE: Kind = Kind::Struct(&[
    ("Kind", Kind::Text),
    ("ID", Kind::Text),
    ("Service", Kind::Text),
    ("Tags", Kind::Texts),
    ("Address", Kind::Text),
    ("TaggedAddresses", ADDRESSES),
    ("Meta", TEXT_MAP),
    ("Port", Kind::Integer),
    ("Weights", WEIGHTS),
    ("EnableTagOverride", Kind::Bool),
    ("Proxy", PROXY),
    ("Connect", CONNECT),
]);

/// `catalog/service`.
pub(crate) static SERVICE_NODES: Kind = Kind::Struct(&[
    ("ID", Kind::Text),
    ("Node", Kind::Text),
    ("Address", Kind::Text),
    ("Datacenter", Kind::Text),
    ("TaggedAddresses", TEXT_MAP),
    ("NodeMeta", TEXT_MAP),
    ("ServiceKind", Kind::Text),
    ("ServiceID", Kind::Text),
    ("ServiceName", Kind::Text),
    ("ServiceTags", Kind::Texts),
    ("ServiceAddress", Kind::Text),
    ("ServiceTaggedAddresses", ADDRESSES),
    ("ServiceWeights", WEIGHTS),
    ("ServiceMeta", TEXT_MAP),
    ("ServicePort", Kind::Integer),
    ("ServiceEnableTagOverride", Kind::Bool),
    ("ServiceProxy", PROXY),
    ("ServiceConnect", CONNECT),
]);

const CHECK: Kind = Kind::Struct(&[
    ("Node", Kind::Text),
    ("CheckID", Kind::Text),
    ("Name", Kind::Text),
    ("Status", Kind::Text),
    ("Notes", Kind::Text),
    ("Output", Kind::Text),
    ("ServiceID", Kind::Text),
    ("ServiceName", Kind::Text),
    ("ServiceTags", Kind::Texts),
]);

/// `agent/checks`, `health/checks`, `health/state`, `health/node`.
pub(crate) static CHECKS: Kind = CHECK;

const NODE: Kind = Kind::Struct(&[
    ("ID", Kind::Text),
    ("Node", Kind::Text),
    ("Address", Kind::Text),
    ("Datacenter", Kind::Text),
    ("TaggedAddresses", TEXT_MAP),
    ("Meta", TEXT_MAP),
]);

/// `health/service`.
pub(crate) static HEALTH: Kind = Kind::Struct(&[
    ("Node", NODE),
    ("Service", SERVICE),
    ("Checks", Kind::List(&CHECK)),
]);
