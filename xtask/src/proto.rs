//! The gRPC contracts in `proto/`: every thing is commented, and nothing that was released is broken (GW-106).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// Descriptors of the last release.
const RELEASED: &str = "proto/released.binpb";

/// Compiles all files and fails with everything that is not commented or breaks the last release.
pub(crate) fn check(root: &Path) -> Result<()> {
    let now = compile(root)?;
    let mut faults = Vec::new();
    for file in ours(&now) {
        uncommented(file, &mut faults);
    }
    let bytes = fs::read(root.join(RELEASED)).context(RELEASED)?;
    let released = FileDescriptorSet::decode(&*bytes).context(RELEASED)?;
    breaks(&released, &now, &mut faults);
    if faults.is_empty() {
        println!("proto: {} files, nothing broken", ours(&now).count());
        return Ok(());
    }
    bail!("proto:\n  {}", faults.join("\n  "))
}

/// Takes the present contracts as those of the last release: part of making one.
pub(crate) fn release(root: &Path) -> Result<()> {
    let mut now = compile(root)?;
    // Comments may change.
    for file in &mut now.file {
        file.source_code_info = None;
    }
    fs::write(root.join(RELEASED), now.encode_to_vec())?;
    println!("wrote {RELEASED}");
    Ok(())
}

fn compile(root: &Path) -> Result<FileDescriptorSet> {
    let proto = root.join("proto");
    let mut files = Vec::new();
    collect(&proto, &mut files)?;
    files.sort();
    protox::compile(files, [&proto]).context("proto")
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

fn ours(set: &FileDescriptorSet) -> impl Iterator<Item = &FileDescriptorProto> {
    set.file
        .iter()
        .filter(|f| f.package().starts_with("portico."))
}

/// Names every declaration without a comment.
fn uncommented(file: &FileDescriptorProto, faults: &mut Vec<String>) {
    let info = file.source_code_info.clone().unwrap_or_default();
    let commented: BTreeMap<Vec<i32>, bool> = info
        .location
        .into_iter()
        .map(|l| {
            (
                l.path,
                !l.leading_comments.unwrap_or_default().trim().is_empty(),
            )
        })
        .collect();
    let mut need = |path: Vec<i32>, what: String| {
        if !commented.get(&path).copied().unwrap_or(false) {
            faults.push(format!("{}: {what} has no comment", file.name()));
        }
    };
    // Numbers of the fields of FileDescriptorProto, DescriptorProto and so on.
    for (at, service) in (0..).zip(&file.service) {
        need(vec![6, at], service.name().to_owned());
        for (n, method) in (0..).zip(&service.method) {
            need(
                vec![6, at, 2, n],
                format!("{}.{}", service.name(), method.name()),
            );
        }
    }
    for (at, message) in (0..).zip(&file.message_type) {
        need(vec![4, at], message.name().to_owned());
        for (n, field) in (0..).zip(&message.field) {
            need(
                vec![4, at, 2, n],
                format!("{}.{}", message.name(), field.name()),
            );
        }
    }
    for (at, one) in (0..).zip(&file.enum_type) {
        need(vec![5, at], one.name().to_owned());
        for (n, value) in (0..).zip(&one.value) {
            need(
                vec![5, at, 2, n],
                format!("{}.{}", one.name(), value.name()),
            );
        }
    }
}

/// Names everything of the old contracts that is gone, or is something else in the new ones.
fn breaks(old: &FileDescriptorSet, new: &FileDescriptorSet, faults: &mut Vec<String>) {
    let (messages, enums) = (all_messages(new), all_enums(new));
    for (name, message) in all_messages(old) {
        match messages.get(&name) {
            None => faults.push(format!("message {name} is gone")),
            Some(now) => message_breaks(&name, message, now, faults),
        }
    }
    for (name, one) in all_enums(old) {
        let Some(now) = enums.get(&name) else {
            faults.push(format!("enum {name} is gone"));
            continue;
        };
        for value in &one.value {
            let same = now
                .value
                .iter()
                .any(|v| v.name() == value.name() && v.number() == value.number());
            if !same {
                faults.push(format!(
                    "{name}.{} is gone or has another number",
                    value.name()
                ));
            }
        }
    }
    let methods = all_methods(new);
    for (name, kind) in all_methods(old) {
        match methods.get(&name) {
            None => faults.push(format!("method {name} is gone")),
            Some(now) if *now != kind => {
                faults.push(format!("method {name} was {kind}, it is {now}"));
            }
            Some(_) => {}
        }
    }
}

fn message_breaks(
    name: &str,
    old: &DescriptorProto,
    new: &DescriptorProto,
    faults: &mut Vec<String>,
) {
    for field in &old.field {
        let what = format!("{name}.{} = {}", field.name(), field.number());
        match new.field.iter().find(|f| f.number() == field.number()) {
            None => faults.push(format!("{what} is gone")),
            Some(now) if now.name() != field.name() => {
                faults.push(format!("{what} is called {} now", now.name()));
            }
            Some(now) => {
                let kind = |f: &prost_types::FieldDescriptorProto| {
                    let alone = f.oneof_index.is_some();
                    (f.r#type, f.type_name.clone(), f.label, alone)
                };
                if kind(now) != kind(field) {
                    faults.push(format!("{what} has another type"));
                }
            }
        }
    }
}

fn all_messages(set: &FileDescriptorSet) -> BTreeMap<String, &DescriptorProto> {
    fn add<'a>(
        prefix: &str,
        messages: &'a [DescriptorProto],
        all: &mut BTreeMap<String, &'a DescriptorProto>,
    ) {
        for message in messages {
            let name = format!("{prefix}.{}", message.name());
            add(&name, &message.nested_type, all);
            all.insert(name, message);
        }
    }
    let mut all = BTreeMap::new();
    for file in ours(set) {
        add(file.package(), &file.message_type, &mut all);
    }
    all
}

fn all_enums(set: &FileDescriptorSet) -> BTreeMap<String, &EnumDescriptorProto> {
    let top = ours(set).flat_map(|file| {
        let named = |one| (file.package().to_owned(), one);
        file.enum_type.iter().map(named)
    });
    let nested = all_messages(set)
        .into_iter()
        .flat_map(|(name, message)| message.enum_type.iter().map(move |one| (name.clone(), one)));
    top.chain(nested)
        .map(|(prefix, one)| (format!("{prefix}.{}", one.name()), one))
        .collect()
}

/// Methods with what they take and give.
fn all_methods(set: &FileDescriptorSet) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for file in ours(set) {
        for service in &file.service {
            for m in &service.method {
                let stream = |on| if on { "stream " } else { "" };
                let kind = format!(
                    "({}{}) → {}{}",
                    stream(m.client_streaming()),
                    m.input_type(),
                    stream(m.server_streaming()),
                    m.output_type()
                );
                let name = format!("{}.{}/{}", file.package(), service.name(), m.name());
                all.insert(name, kind);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> FileDescriptorSet {
        let folder = std::env::temp_dir().join(format!("portico-proto-{}", std::process::id()));
        let name = format!(
            "f{:x}.proto",
            text.len() * 31 + text.bytes().map(usize::from).sum::<usize>()
        );
        fs::create_dir_all(&folder).unwrap();
        let head = "syntax = \"proto3\"; package portico.test.v1;\n";
        fs::write(folder.join(&name), format!("{head}{text}")).unwrap();
        protox::compile([folder.join(&name)], [&folder]).unwrap()
    }

    fn faults(old: &str, new: &str) -> Vec<String> {
        let mut faults = Vec::new();
        breaks(&set(old), &set(new), &mut faults);
        faults
    }

    const OLD: &str = "service S { rpc Do(A) returns (B); }
        message A { string x = 1; oneof o { int32 y = 2; } E e = 3; }
        message B { message C { bool z = 1; } repeated C c = 1; }
        enum E { E_NONE = 0; E_ONE = 1; }";

    #[test]
    fn what_is_added_breaks_nothing() {
        let new = "service S { rpc Do(A) returns (B); rpc More(A) returns (stream B); }
            message A { string x = 1; oneof o { int32 y = 2; int32 n = 9; } E e = 3; string more = 4; }
            message B { message C { bool z = 1; int64 more = 2; } repeated C c = 1; }
            message D {}
            enum E { E_NONE = 0; E_ONE = 1; E_TWO = 2; }";
        assert_eq!(faults(OLD, OLD), Vec::<String>::new());
        assert_eq!(faults(OLD, new), Vec::<String>::new());
    }

    #[test]
    fn what_is_taken_away_or_changed_breaks() {
        for (from, to, fault) in [
            ("string x = 1;", "", ".A.x = 1 is gone"),
            ("string x = 1;", "string x = 7;", ".A.x = 1 is gone"),
            ("string x = 1;", "string w = 1;", ".A.x = 1 is called w now"),
            ("string x = 1;", "bytes x = 1;", ".A.x = 1 has another type"),
            (
                "string x = 1;",
                "repeated string x = 1;",
                ".A.x = 1 has another type",
            ),
            (
                "oneof o { int32 y = 2; }",
                "int32 y = 2;",
                ".A.y = 2 has another type",
            ),
            ("bool z = 1;", "", ".B.C.z = 1 is gone"),
            ("E_ONE = 1;", "", ".E.E_ONE is gone or has another number"),
            (
                "E_ONE = 1;",
                "E_ONE = 2;",
                ".E.E_ONE is gone or has another number",
            ),
            (
                "rpc Do(A) returns (B);",
                "",
                "method portico.test.v1.S/Do is gone",
            ),
            (
                "returns (B);",
                "returns (stream B);",
                "method portico.test.v1.S/Do was",
            ),
        ] {
            let found = faults(OLD, &OLD.replacen(from, to, 1));
            assert_eq!(found.len(), 1, "{from} → {to}: {found:?}");
            assert!(found[0].contains(fault), "{from} → {to}: {found:?}");
        }
    }

    #[test]
    fn what_has_no_comment_is_named() {
        let text = "// Said.\nmessage A {\n  // Said.\n  string x = 1;\n  string y = 2;\n}\nmessage B {}\n";
        let set = set(text);
        let mut faults = Vec::new();
        uncommented(ours(&set).next().unwrap(), &mut faults);
        let named: Vec<_> = faults
            .iter()
            .map(|f| f.split(": ").last().unwrap())
            .collect();
        assert_eq!(named, ["A.y has no comment", "B has no comment"]);
    }
}
