//! Writes the golden bytes as seeds of every fuzz target: `fuzz_seeds CORPUS-FOLDER`.

use std::path::PathBuf;

use aspfs_tests::hostile::TARGETS;
use aspfs_tests::{hostile_template, samples};

fn main() -> std::io::Result<()> {
    let Some(corpus) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: fuzz_seeds CORPUS-FOLDER");
        std::process::exit(2);
    };
    for (target, _) in TARGETS {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        for (file, name, bytes) in samples::encoded() {
            std::fs::write(folder.join(format!("{file}-{name}")), bytes)?;
        }
        for (name, bytes) in hostile_template::seeds() {
            std::fs::write(folder.join(format!("template-{name}")), bytes)?;
        }
    }
    let folder = corpus.join("control");
    std::fs::create_dir_all(&folder)?;
    for (n, bytes) in aspfs_tests::hostile_control::seeds().into_iter().enumerate() {
        std::fs::write(folder.join(format!("conversation-{n}")), bytes)?;
    }
    let folder = corpus.join("blobs");
    std::fs::create_dir_all(&folder)?;
    for (name, bytes) in aspfs_tests::hostile_blobs::encoded() {
        std::fs::write(folder.join(name), bytes)?;
    }
    let folder = corpus.join("talk");
    std::fs::create_dir_all(&folder)?;
    for (name, bytes) in aspfs_tests::hostile_talk::encoded() {
        std::fs::write(folder.join(name), bytes)?;
    }
    let folder = corpus.join("wire");
    std::fs::create_dir_all(&folder)?;
    for (name, bytes) in aspfs_tests::hostile_wire::encoded() {
        std::fs::write(folder.join(name), bytes)?;
    }
    for target in ["node_list", "bundle"] {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        for (name, bytes) in aspfs_tests::hostile_cluster::seeds() {
            std::fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}
