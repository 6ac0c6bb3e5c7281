//! Why a message is refused, with the status to answer and the label to count it under.

use http::StatusCode;

/// A message that is not HTTP/1.1 as RFC 9112 writes it, or is beyond a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a line ends in a bare line feed")]
    BareLf,
    #[error("a header line is folded")]
    ObsFold,
    #[error("white space before the colon of a header line")]
    SpaceBeforeColon,
    #[error("a header name is empty or not a token")]
    FieldName,
    #[error("a header value has a forbidden byte")]
    FieldValue,
    #[error("the request line is not method, target and version")]
    RequestLine,
    #[error("the method is not a token")]
    Method,
    #[error("the request target is not valid")]
    Target,
    #[error("the protocol version is not supported")]
    Version,
    #[error("CONNECT is not supported")]
    Connect,
    #[error("the request line is too long")]
    LineTooLong,
    #[error("the header block is too large")]
    HeadTooLarge,
    #[error("too many header lines")]
    TooManyFields,
    #[error("content-length is not one decimal number")]
    ContentLength,
    #[error("content-length is given more than once")]
    DuplicateLength,
    #[error("content-length and transfer-encoding are given together")]
    LengthAndEncoding,
    #[error("transfer-encoding is not exactly one chunked")]
    TransferEncoding,
    #[error("the transfer coding is not known")]
    UnknownEncoding,
    #[error("transfer-encoding in HTTP/1.0")]
    EncodingInHttp10,
    #[error("host is missing")]
    MissingHost,
    #[error("host is given more than once")]
    DuplicateHost,
    #[error("host is not a host with an optional port")]
    InvalidHost,
    #[error("connection names a field that must not be removed")]
    ConnectionNominates,
    #[error("the expectation is not known")]
    Expectation,
    #[error("a chunk size is not 1 to 16 hexadecimal digits")]
    ChunkSize,
    #[error("chunk extensions are malformed or too long")]
    ChunkExtension,
    #[error("chunk data is not ended by CRLF")]
    ChunkEnd,
    #[error("the trailer section is malformed")]
    Trailer,
    #[error("the trailer section is too large")]
    TrailerTooLarge,
    #[error("the body ended before its length")]
    BodyTooShort,
    #[error("the status line is malformed")]
    StatusLine,
    #[error("the answer must not have a body but announces one")]
    UnexpectedBody,
}

impl Error {
    /// The status to answer a client with.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::LineTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge | Self::TooManyFields | Self::TrailerTooLarge => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::UnknownEncoding | Self::Connect => StatusCode::NOT_IMPLEMENTED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// A short stable name: the metric's `kind`.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::ObsFold => "obs_fold",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::FieldName => "field_name",
            Self::FieldValue => "field_value",
            Self::RequestLine => "request_line",
            Self::Method => "method",
            Self::Target => "target",
            Self::Version => "version",
            Self::Connect => "connect",
            Self::LineTooLong => "line_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::ContentLength => "content_length",
            Self::DuplicateLength => "duplicate_length",
            Self::LengthAndEncoding => "length_and_encoding",
            Self::TransferEncoding => "transfer_encoding",
            Self::UnknownEncoding => "unknown_encoding",
            Self::EncodingInHttp10 => "encoding_in_http10",
            Self::MissingHost => "missing_host",
            Self::DuplicateHost => "duplicate_host",
            Self::InvalidHost => "invalid_host",
            Self::ConnectionNominates => "connection_nominates",
            Self::Expectation => "expectation",
            Self::ChunkSize => "chunk_size",
            Self::ChunkExtension => "chunk_extension",
            Self::ChunkEnd => "chunk_end",
            Self::Trailer => "trailer",
            Self::TrailerTooLarge => "trailer_too_large",
            Self::BodyTooShort => "body_too_short",
            Self::StatusLine => "status_line",
            Self::UnexpectedBody => "unexpected_body",
        }
    }
}
