//! Who may depend on whom, and which words betray that code stands in the wrong layer.

use crate::manifests;
use crate::scan::{bare, is_word, line_of, word_offsets};
use crate::tree::Tree;

/// The crates of the product, and what each may use of the workspace. Downwards only.
const PRODUCT: [(&str, &[&str]); 4] = [
    ("vefs", &[]),
    ("aspfs-replica", &["vefs"]),
    ("aspfs-holder", &[]),
    ("aspfs-tools", &["vefs", "aspfs-replica", "aspfs-holder"]),
];

/// Crates beside the product: they may use anything, and nothing of the product uses them.
const BESIDE: [&str; 3] = ["aspfs-tests", "aspfs-benches", "aspfs-fuzz"];

/// Foreign crates that must not be named by a crate of the product.
const FOREIGN: [(&str, &[&str]); 2] = [("vefs", &["tokio", "quinn"]), ("aspfs-replica", &["fuser"])];

/// Dependencies that point upwards or beside, and crates that no table here knows.
pub fn dependencies(tree: &Tree) -> Vec<String> {
    let (crates, mut out) = manifests::crates(tree);
    for c in crates.iter().filter(|c| !BESIDE.contains(&c.name.as_str())) {
        let Some((_, allowed)) = PRODUCT.iter().find(|(name, _)| *name == c.name) else {
            out.push(format!("{}: {} stands in no table of layers", c.path, c.name));
            continue;
        };
        for (dep, value) in manifests::dependencies(&c.table) {
            let dep = value.get("package").and_then(|p| p.as_str()).unwrap_or(dep);
            let ours = BESIDE.contains(&dep) || PRODUCT.iter().any(|(name, _)| *name == dep);
            let foreign = FOREIGN.iter().any(|(name, not)| *name == c.name && not.contains(&dep));
            if (ours && !allowed.contains(&dep)) || foreign {
                out.push(format!("{}: {} must not depend on {dep}", c.path, c.name));
            }
        }
    }
    out
}

/// A layer: where it lies, exempted folders in it, and the words and paths that must not be used there.
type Layer = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Sockets of any kind.
const SOCKETS: &[&str] = &["quinn", "tokio::net", "unix::net", "UdpSocket", "TcpStream", "TcpListener"];

const LAYERS: [Layer; 5] = [
    ("vefs/src/", &[], &["std::net", "tokio", "quinn"]),
    ("vefs/src/", &["vefs/src/fuse/"], &["fuser", "unix::net"]),
    ("aspfs-replica/src/", &[], &["fuser", "ioctl"]),
    ("aspfs-replica/src/", &["aspfs-replica/src/net/"], SOCKETS),
    ("aspfs-replica/src/", &["aspfs-replica/src/net/", "aspfs-replica/src/runtime/"], &["std::net", "tokio"]),
];

/// Uses of what a layer must not know, grouped imports (`use std::{net, …}`) included. Comments and strings are free.
pub fn imports(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    for (place, exempt, forbidden) in LAYERS {
        let inside = |p: &str| p.starts_with(place) && !exempt.iter().any(|e| p.starts_with(e));
        for (path, text) in tree.ending(".rs").filter(|(p, _)| inside(p)) {
            let bare = bare(text);
            let mut found: Vec<(usize, &str)> = Vec::new();
            for word in forbidden {
                found.extend(word_offsets(&bare, word).into_iter().map(|at| (line_of(&bare, at), *word)));
            }
            for (line, import) in flat_imports(&bare) {
                let hits = forbidden.iter().filter(|w| !word_offsets(&import, w).is_empty());
                found.extend(hits.map(|w| (line, *w)));
            }
            out.extend(found.into_iter().map(|(line, word)| format!("{path}:{line}: {word} does not belong here")));
        }
    }
    out.sort();
    out.dedup();
    out
}

/// Every path that the `use` statements name, one by one, with the statement's line.
fn flat_imports(bare: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for at in word_offsets(bare, "use") {
        let statement = bare[at + 3..].split(';').next().unwrap_or("");
        let mut stack: Vec<String> = vec![String::new()];
        let mut path = String::new();
        for c in statement.chars() {
            match c {
                '{' => stack.push(std::mem::take(&mut path)),
                ',' | '}' => {
                    out.push((line_of(bare, at), stack.concat() + &path));
                    path.clear();
                    if c == '}' && stack.len() > 1 {
                        stack.pop();
                    }
                }
                c if is_word(c) || c == ':' => path.push(c),
                _ => {}
            }
        }
        out.push((line_of(bare, at), stack.concat() + &path));
    }
    out
}

#[cfg(test)]
fn manifest(name: &str, dep: &str) -> String {
    format!("[package]\nname = \"{name}\"\n[dependencies]\n{dep}\n")
}

#[test]
fn dependencies_upwards_and_beside_are_found() {
    for (name, dep) in [
        ("vefs", "aspfs-replica.workspace = true"),
        ("vefs", "tokio.workspace = true"),
        ("aspfs-replica", "fuser.workspace = true"),
        ("aspfs-replica", "aspfs-tools.workspace = true"),
        ("aspfs-tools", "aspfs-tests.workspace = true"),
        ("vefs", "[dev-dependencies]\naspfs-benches.workspace = true"),
        ("vefs", "other = { package = \"aspfs-fuzz\", workspace = true }"),
        ("unheard-of", ""),
    ] {
        let text = manifest(name, dep);
        assert_eq!(dependencies(&Tree::planted(&[("a/Cargo.toml", &text)])).len(), 1, "{text}");
    }
    for (name, dep) in [
        ("aspfs-tools", "vefs.workspace = true\naspfs-replica.workspace = true\ntokio.workspace = true"),
        ("aspfs-replica", "vefs.workspace = true\nquinn.workspace = true"),
        ("aspfs-tests", "aspfs-tools.workspace = true"),
        ("vefs", "fuser.workspace = true"),
    ] {
        let text = manifest(name, dep);
        assert!(dependencies(&Tree::planted(&[("a/Cargo.toml", &text)])).is_empty(), "{text}");
    }
}

#[test]
fn imports_of_another_layer_are_found() {
    for (path, line) in [
        ("vefs/src/a.rs", "use std::net::TcpStream;"),
        ("vefs/src/a.rs", "use std::{io, net::{self}};"),
        ("vefs/src/fuse/a.rs", "use std::{io, net};"),
        ("vefs/src/a.rs", "use std::os::{fd, unix::net::UnixStream};"),
        ("vefs/src/a.rs", "fn f() { tokio::spawn(x); }"),
        ("vefs/src/a.rs", "use fuser::Session;"),
        ("vefs/src/a/b.rs", "use quinn as q;"),
        ("aspfs-replica/src/a.rs", "use fuser::Session;"),
        ("aspfs-replica/src/a.rs", "rustix::ioctl::ioctl(fd);"),
        ("aspfs-replica/src/net/a.rs", "use fuser::Session;"),
        ("aspfs-replica/src/a.rs", "use std::net::SocketAddr;"),
        ("aspfs-replica/src/ship.rs", "fn f() { tokio::spawn(x); }"),
        ("aspfs-replica/src/cluster/a.rs", "use quinn::Endpoint;"),
        ("aspfs-replica/src/runtime/a.rs", "use quinn::Connection;"),
        ("aspfs-replica/src/runtime/a.rs", "let s = tokio::net::UnixStream::connect(p);"),
        ("aspfs-replica/src/runtime/a.rs", "use std::net::{SocketAddr, UdpSocket};"),
    ] {
        assert_eq!(imports(&Tree::planted(&[(path, line)])).len(), 1, "{path} {line}");
    }
    for (path, line) in [
        ("vefs/src/fuse/a.rs", "use fuser::Session; use std::os::unix::net::UnixStream;"),
        ("vefs/src/a.rs", "// tokio\nlet s = \"std::net\"; use std::{io, fs}; use x::{net};"),
        ("aspfs-replica/src/net/a.rs", "use std::net::SocketAddr; use quinn::Endpoint; tokio::spawn(x);"),
        ("aspfs-replica/src/runtime/a.rs", "use std::net::SocketAddr; fn f() { tokio::spawn(x); }"),
        ("aspfs-tools/src/a.rs", "use fuser::Session;"),
    ] {
        assert!(imports(&Tree::planted(&[(path, line)])).is_empty(), "{path} {line}");
    }
}
