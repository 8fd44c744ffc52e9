//! The examples of docs/SEMANTICS.md, as they stand there.

use std::fs;
use std::process::Command;
use std::time::Duration;

use aspfs_tests::mounted::outcome;

use crate::bed;

/// Commands and what they shall print, from the blocks of a kind.
fn examples(text: &str) -> Vec<(String, String)> {
    let blocks = text.split("```console\n").skip(1).filter_map(|rest| rest.split_once("```").map(|(block, _)| block));
    let example = |block: &str| {
        let (command, expected) = block.split_once('\n').unwrap();
        (command.strip_prefix("$ ").unwrap().to_owned(), expected.to_owned())
    };
    blocks.map(example).collect()
}

#[test]
fn the_examples_are_true() {
    let text = include_str!("../../../docs/SEMANTICS.md");
    let examples = examples(text);
    assert!(examples.len() >= 5);
    let Some((bed, ve)) = bed(60) else { return };
    for (n, (command, expected)) in examples.iter().enumerate() {
        let dir = ve.join(n.to_string());
        fs::create_dir(&dir).unwrap();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-ec", command]).current_dir(&dir);
        let done = outcome(&mut shell, Duration::from_secs(20)).unwrap();
        assert_eq!((&done.stdout, &*done.stderr), (expected, ""), "{command}");
    }
    bed.finish();
}
