//! Types and rules of the audit: canonical JSON, records, masking, the chain, folding.

pub(crate) mod chain;
pub(crate) mod checkpoint;
pub(crate) mod fold;
pub(crate) mod jcs;
pub(crate) mod mask;
pub(crate) mod record;
pub(crate) mod report;
