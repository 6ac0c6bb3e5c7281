//! Sections about what is kept and where: database, redis, objects, keys.

use std::path::PathBuf;

use portico_base::Secret;

use crate::key::{choice, section};
use crate::types::{MasterKey, Millis, Prefix, Seconds};
use crate::urls::{DatabaseUrl, HttpUrl, RedisUrl};

choice! {
    /// A connection pooler between us and PostgreSQL.
    pub enum Pooler {
        /// None.
        None = "none",
        /// pgBouncer in transaction mode: no session state, no LISTEN.
        PgBouncer = "pgbouncer",
    }
}

section! {
    /// Where rows are kept: SQLite in a file, or PostgreSQL 15 or newer for several replicas.
    pub struct Database {
        groups { tls: DatabaseTls }
        keys {
            /// Address of the database: sqlite://PATH or postgres://USER@HOST:PORT/DATABASE.
            url: DatabaseUrl = "sqlite://<data>/portico.db"; flag("--database"),
            /// Connections of this process to PostgreSQL; SQLite has one writer and a reader per core.
            max_connections: u32 = 20; range(1, 10_000),
            /// Connections that are kept open.
            min_connections: u32 = 2; range(0, 10_000),
            /// Milliseconds that a request waits for a connection.
            acquire_timeout_ms: Millis = 3000; range(10, 600_000),
            /// Milliseconds after which PostgreSQL stops a statement; 0 for never.
            statement_timeout_ms: Millis = 15_000; range(0, 3_600_000),
            /// Seconds after which an unused connection is closed.
            idle_s: Seconds = 600; range(1, 86_400),
            /// Seconds after which a connection is replaced.
            max_lifetime_s: Seconds = 1800; range(10, 86_400),
            /// A read replica of PostgreSQL for lists, statistics and exports.
            read_url: Option<DatabaseUrl> = ""; later("read replicas (SC-6)"),
            /// Milliseconds of lag up to which the read replica is used.
            read_max_lag_ms: Millis = 500; range(0, 600_000); later("read replicas (SC-6)"),
            /// A pooler in front of PostgreSQL.
            pooler: Pooler = "none",
            /// Milliseconds from which a statement is logged as slow, without its parameters.
            slow_ms: Millis = 200; range(1, 600_000),
        }
    }
}

choice! {
    /// How much the connection to PostgreSQL is protected.
    pub enum DatabaseTlsMode {
        /// TLS when the server offers it.
        Prefer = "prefer",
        /// TLS without a check of the certificate.
        Require = "require",
        /// TLS, certificate and name checked.
        VerifyFull = "verify-full",
    }
}

section! {
    /// Encryption of the connection to PostgreSQL.
    pub struct DatabaseTls {
        keys {
            /// How much the connection is protected; with `ca_file` the default is verify-full.
            mode: DatabaseTlsMode = "prefer",
            /// Authority that signed the server's certificate, PEM.
            ca_file: Option<PathBuf> = "",
            /// Client certificate, PEM.
            cert_file: Option<PathBuf> = "",
            /// Private key of the client certificate, PEM.
            key_file: Option<PathBuf> = "",
        }
    }
}

section! {
    /// Shared state of several replicas: cache, wake-ups, limits. Without it state is in the process.
    pub struct Redis {
        keys {
            /// Address of Redis 7: redis://HOST:PORT/DB, rediss://… with TLS, unix:///PATH of a socket,
            /// redis-sentinel://HOST,HOST/PRIMARY or redis-cluster://HOST,HOST.
            url: Option<RedisUrl> = ""; flag("--redis"),
            /// Authority that signed the server's certificate, PEM; instead of those of the system.
            ca_file: Option<PathBuf> = "",
            /// What every key and channel begins with.
            prefix: Prefix = "portico:",
            /// Connections of this process.
            pool: u32 = 8; range(1, 1000),
            /// Milliseconds to connect.
            connect_timeout_ms: Millis = 2000; range(10, 60_000),
            /// Milliseconds that one command may take.
            command_timeout_ms: Millis = 500; range(10, 60_000),
        }
    }
}

choice! {
    /// Where objects are kept.
    pub enum ObjectKind {
        /// Files of this machine.
        Local = "local",
        /// A bucket that speaks S3.
        S3 = "s3",
    }
}

choice! {
    /// Encryption that the object store is asked for.
    pub enum Encryption {
        /// None.
        None = "none",
        /// By the store's own key (SSE-S3).
        S3 = "s3",
        /// By a key of its key service (SSE-KMS).
        Kms = "kms",
    }
}

section! {
    /// Where uploaded and produced files are kept.
    pub struct Objects {
        keys {
            /// Files of this machine, or a bucket that speaks S3.
            kind: ObjectKind = "local",
            /// Directory of local objects.
            path: PathBuf = "<data>/objects",
            /// Address of the S3 service; none means AWS.
            endpoint: Option<HttpUrl> = "",
            /// Region of the bucket.
            region: String = "",
            /// Name of the bucket.
            bucket: String = "",
            /// What every object's name in the bucket begins with, like `portico/prod`.
            prefix: String = "",
            /// Access key of the S3 service.
            access_key: Option<Secret<String>> = "",
            /// Secret key of the S3 service.
            secret_key: Option<Secret<String>> = "",
            /// Lets `objects.endpoint` be an http:// address outside this machine.
            allow_http: bool = false,
            /// Bucket in the path instead of the host name, as most stores but AWS want it.
            path_style: bool = true,
            /// Address under which clients reach the S3 service for direct downloads and uploads.
            public_endpoint: Option<HttpUrl> = ""; later("direct downloads"),
            /// Encryption that the store is asked for.
            sse: Encryption = "none",
        }
    }
}

section! {
    /// The master key that seals secrets in the database.
    pub struct Keys {
        keys {
            /// The master key itself, 32 bytes as 64 hexadecimal digits or base64. Meant for
            /// the environment; it wins over `keys.master_file`.
            master: Option<MasterKey> = ""; no_file(),
            /// File of the master key, mode 0600, made at the first start. Keep a copy elsewhere:
            /// without it the sealed values are lost.
            master_file: PathBuf = "<data>/master.key",
            /// Files of earlier master keys, which still open what they sealed.
            previous_files: Vec<PathBuf> = [] as [&str; 0],
        }
    }
}
