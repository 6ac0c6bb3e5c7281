//! Sections about the process itself: node, shutdown, limits.

use std::path::PathBuf;

use crate::key::{choice, section};
use crate::net::Name;
use crate::types::{Auto, Seconds};

choice! {
    /// What a process does (OP-1); which surfaces and workers belong to a role is the binary's table.
    pub enum Role {
        /// Every role.
        All = "all",
        /// The door.
        Gateway = "gateway",
        /// Services and their instances.
        Registry = "registry",
        /// Users, sessions, permissions.
        Identity = "identity",
        /// Settings, audit, control.
        Control = "control",
        /// Sockets and rooms.
        Realtime = "realtime",
        /// Music.
        Music = "music",
        /// Video and live.
        Video = "video",
        /// Nodes of the fleet.
        Fleet = "fleet",
        /// Background jobs.
        Worker = "worker",
    }
}

section! {
    /// This process: where it keeps its data and what it does.
    pub struct Node {
        keys {
            /// Directory of everything that this process keeps. As a system service use
            /// /var/lib/portico. In every other value `<data>` stands for this directory.
            data_dir: PathBuf = "./portico-data"; flag("--data-dir"),
            /// Name of this replica; without one it is the host name and four random letters.
            name: Option<Name> = "",
            /// Failure zone of this replica, told to the registry and used to prefer near instances.
            zone: Option<Name> = "",
            /// Region of the installation.
            region: Name = "local",
            /// What this process does. Every role but `all` needs a database server, so that the
            /// processes share it.
            roles: Vec<Role> = ["all"]; flag("--roles"),
            /// Threads of the data plane, one event loop each; auto is the number of cores.
            workers: Auto<usize> = "auto"; range(1, 1024),
            /// Start the demo plug-ins echo and clock. They never start with a domain, with
            /// PostgreSQL, or when the public listener is not on loopback.
            demo: bool = true; flag("--no-demo"),
            /// Development mode: more detail in errors, login codes in the log; refused with a domain.
            dev: bool = false,
        }
    }
}

section! {
    /// How the process stops.
    pub struct Shutdown {
        keys {
            /// Seconds during which a stopping process is unready but goes on serving, so that load
            /// balancers notice; auto is 5 with PostgreSQL and 0 with SQLite.
            drain_delay_s: Auto<Seconds> = "auto"; range(0, 3600),
            /// Seconds that open requests get to end after that.
            grace_s: Seconds = 25; range(0, 3600),
            /// Seconds after which the process ends in any case, with exit code 1.
            force_s: Seconds = 30; range(1, 7200),
        }
    }
}

section! {
    /// What the process may use of its machine.
    pub struct Limits {
        keys {
            /// Memory in MiB that caches and buffers are sized for; auto is the limit of the control
            /// group, else the machine's memory.
            memory_mb: Auto<u64> = "auto"; range(32, 16_777_216),
            /// Open files; auto raises the soft limit to the hard limit.
            nofile: Auto<u64> = "auto"; range(256, 1_048_576),
            /// Free space in MiB of the data directory's volume below which uploads, recordings and
            /// the disk cache stop with 507; 5 % of the volume when that is more.
            disk_reserve_mb: u64 = 512; range(0, 1_048_576),
        }
    }
}
