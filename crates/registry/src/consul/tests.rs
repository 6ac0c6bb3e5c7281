//! The API driven in-process.
