//! HTTP/2 in raw frames: what RFC 9113 demands of a server, and floods.

mod floods;
mod frames;
mod rules;
