//! `portico config`: look at the configuration without starting anything.

use portico_config::{Faults, Flag, Input, Loaded};
use portico_host::exit;

use crate::cli::ConfigFlags;
use crate::text::{self, say};

/// The flags as (key, value) pairs for the loader.
pub(crate) fn flags(args: &ConfigFlags) -> Vec<Flag> {
    let mut flags = Vec::new();
    let mut add = |key: &str, value: Option<&String>, flag: &str| {
        if let Some(value) = value {
            flags.push(Flag::new(key, value, flag));
        }
    };
    add("node.data_dir", args.data_dir.as_ref(), "--data-dir");
    add("listen.http", args.listen.as_ref(), "--listen");
    add(
        "listen.consul",
        args.consul_listen.as_ref(),
        "--consul-listen",
    );
    add("listen.admin", args.admin_listen.as_ref(), "--admin-listen");
    add("listen.grpc", args.grpc_listen.as_ref(), "--grpc-listen");
    add(
        "listen.internal",
        args.internal_listen.as_ref(),
        "--internal-listen",
    );
    add("node.roles", args.roles.as_ref(), "--roles");
    add("database.url", args.database.as_ref(), "--database");
    add("redis.url", args.redis.as_ref(), "--redis");
    if args.no_demo {
        add("node.demo", Some(&"false".to_owned()), "--no-demo");
    }
    flags
}

/// Loads the configuration, with the settings in it checked against what the services declare.
pub(crate) fn load(args: &ConfigFlags, more: Vec<Flag>) -> Result<Loaded, Faults> {
    let mut all = flags(args);
    all.extend(more);
    let check_settings = crate::composition::check_settings;
    let mut input = Input::of_process(all, args.config.clone());
    input.also.push(&check_settings);
    portico_config::load(&input)
}

/// Prints the commented default file.
pub(crate) fn print_default() {
    text::print(&portico_config::render_default());
}

/// Prints the JSON Schema.
pub(crate) fn print_schema() {
    let schema = serde_json::to_string_pretty(&portico_config::schema()).unwrap_or_default();
    text::print(&(schema + "\n"));
}

/// Prints the reference.
pub(crate) fn print_docs() {
    text::print(&portico_config::docs());
}

/// Reports every fault.
pub(crate) fn check(args: &ConfigFlags) -> u8 {
    match load(args, Vec::new()) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                eprintln!("warning: {warning}");
            }
            match loaded.file {
                Some(file) => say!("{}: the configuration is good", file.display()),
                None => say!("no file; the configuration is good"),
            }
            0
        }
        Err(faults) => {
            eprintln!("{faults}");
            exit::USAGE
        }
    }
}

/// Prints the values in force.
pub(crate) fn show(args: &ConfigFlags, origin: bool) -> u8 {
    match load(args, Vec::new()) {
        Ok(loaded) => {
            text::print(&portico_config::show(&loaded, origin));
            0
        }
        Err(faults) => {
            eprintln!("{faults}");
            exit::USAGE
        }
    }
}
