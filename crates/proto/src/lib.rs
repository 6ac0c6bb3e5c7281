//! The gRPC contracts of the platform, generated from `proto/`: messages, clients and servers.

/// Identity.
pub mod identity {
    /// `portico.identity.v1`.
    pub mod v1 {
        tonic::include_proto!("portico.identity.v1");
    }
}

/// Settings.
pub mod settings {
    /// `portico.settings.v1`.
    pub mod v1 {
        tonic::include_proto!("portico.settings.v1");
    }
}

/// Descriptors of all files, for reflection and for comparing releases.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));
