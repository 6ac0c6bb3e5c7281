//! Tells the binary its commit and compiler.

use std::process::Command;

fn main() {
    println!(
        "cargo:rustc-env=PORTICO_COMMIT={}",
        first_line("git", &["rev-parse", "--short=12", "HEAD"])
    );
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    println!(
        "cargo:rustc-env=PORTICO_RUSTC={}",
        first_line(&rustc, &["--version"])
    );
    // The commit changes with HEAD; without a checkout the path does not exist and nothing is watched.
    if std::path::Path::new("../../.git/HEAD").exists() {
        println!("cargo:rerun-if-changed=../../.git/HEAD");
    }
    println!("cargo:rerun-if-changed=build.rs");
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}
