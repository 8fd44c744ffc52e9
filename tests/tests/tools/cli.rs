//! The command line: help that teaches, refusals that name what is wrong, manual pages for everything.

use std::process::Command;

use aspfs_tests::node::{Node, Said, programs};

const COMMANDS: &[&[&str]] = &[
    &[],
    &["status"],
    &["ve"],
    &["ve", "create"],
    &["ve", "list"],
    &["ve", "show"],
    &["ve", "set"],
    &["ve", "destroy"],
    &["template"],
    &["template", "import"],
    &["template", "list"],
    &["template", "show"],
    &["template", "verify"],
    &["template", "remove"],
    &["mount"],
    &["umount"],
    &["versions"],
    &["cat"],
    &["diff"],
    &["hold"],
    &["hold", "add"],
    &["hold", "list"],
    &["hold", "release"],
    &["gc"],
    &["daemon"],
    &["daemon", "stop"],
    &["completions"],
    &["man"],
];

#[test]
fn every_command_explains_itself() {
    let node = Node::stopped();
    for command in COMMANDS {
        let help = node.aspfs(&[command, &["--help"][..]].concat()).ok();
        assert!(help.contains("Usage: aspfs"), "{command:?}: {help}");
        assert!(help.lines().next().is_some_and(|l| l.len() > 10), "{command:?}: {help}");
    }
    for (command, example) in [
        (&[][..], "aspfs ve create 0000002A --template debian --quota 10G"),
        (&["ve", "create"], "--template debian,web"),
        (&["template", "import"], "debootstrap"),
        (&["mount"], "/etc/fstab"),
        (&["cat"], "--at '1 minute ago'"),
        (&["diff"], "aspfs diff '0000002A@1 hour ago'"),
        (&["hold", "add"], "before-upgrade"),
    ] {
        let help = node.aspfs(&[command, &["--help"]].concat()).ok();
        assert!(help.contains(example), "{command:?}: {help}");
    }
}

#[test]
fn what_is_asked_wrongly_is_named_and_ends_with_2() {
    let node = Node::start();
    for (args, said) in [
        (&["ve", "create", "2A"][..], &["2A", "8 hex digits"][..]),
        (&["ve", "create", "0000002G"], &["0000002G", "8 hex digits"]),
        (&["ve", "create", "0000002A", "--quota", "much"], &["much", "not a size"]),
        (&["ve", "create", "0000002A", "--inodes", "x"], &["\"x\""]),
        (&["ve", "create", "0000002A", "--template", "a,,b"], &["template"]),
        (&["ve", "create", "0000002A", "--template", "No Name"], &["No Name"]),
        (&["ve", "create"], &["VEID"]),
        (&["ve", "set", "0000002A"], &["--quota"]),
        (&["ve", "explode", "0000002A"], &["explode"]),
        (&["cat", "0000002A", "/f", "--at", "yesterday"], &["yesterday", "not a time"]),
        (&["diff", "0000002A@1", "0000002B"], &["one VE", "0000002B"]),
        (&["diff"], &["VEID@VERSION"]),
        (&["mount", "0000002A"], &["DIR"]),
        (&["mount", "0000002A", "/", "-o", "bogus"], &["unknown mount option \"bogus\""]),
        (&["mount", "0000002A", "/", "-o", "ro,fsname"], &["fsname"]),
        (&["completions", "tcsh"], &["tcsh"]),
        (&["status", "--colour"], &["--colour"]),
        (&["template", "import", "Bad", "/"], &["Bad", "name"]),
    ] {
        node.aspfs(args).fails(2, said);
    }
    assert_eq!(node.aspfs(&["--json", "ve", "list"]).ok().trim(), "[]");
    assert_eq!(node.aspfs(&["--json", "template", "list"]).ok().trim(), "[]");
}

#[test]
fn without_a_daemon_the_socket_is_named() {
    let node = Node::stopped();
    let socket = node.socket();
    for command in [&["status"][..], &["ve", "list"], &["umount", "0000002A"], &["gc"]] {
        node.aspfs(command).fails(1, &[socket.to_str().unwrap(), "aspfsd"]);
    }
}

#[test]
fn manual_pages_and_completions_are_made() {
    let node = Node::stopped();
    let man = node.path("man");
    node.aspfs(&["man", man.to_str().unwrap()]).ok();
    let page = |name: &str| std::fs::read_to_string(man.join(format!("{name}.8"))).unwrap();
    for command in COMMANDS {
        let name = [&["aspfs"], *command].concat();
        let text = page(&name.join("-"));
        assert!(text.contains(".TH ASPFS") && text.contains(".SH SYNOPSIS"), "{text}");
    }
    assert!(page("aspfsd").contains("gc\\-interval"));
    assert!(page("aspfs-ve-create").contains("aspfs ve create"));
    for shell in ["bash", "zsh", "fish"] {
        let text = node.aspfs(&["completions", shell]).ok();
        assert!(text.contains("template") && text.contains("quota"), "{shell}");
    }
    node.aspfs(&["man", "/proc/nowhere"]).fails(1, &["/proc/nowhere"]);
}

#[test]
fn the_helper_refuses_what_it_does_not_know() {
    let node = Node::stopped();
    let helper = node.path("mount.fuse.vefs");
    std::os::unix::fs::symlink(programs().join("aspfs"), &helper).unwrap();
    let run = |args: &[&str]| -> Said {
        Command::new(&helper).args(args).env("ASPFS_SOCKET", node.socket()).output().unwrap().into()
    };
    run(&["0000002A", "/", "-o", "rw,bogus"]).fails(2, &["bogus"]);
    run(&["0000002A"]).fails(2, &["usage"]);
    run(&["2A", "/"]).fails(2, &["2A", "8 hex digits"]);
    run(&["0000002A", "/", "-x"]).fails(2, &["-x"]);
    run(&["0000002A", "/nowhere/at/all"]).fails(1, &["/nowhere/at/all"]);
    run(&["-f", "0000002A", "/", "-o", "ro,nosuid"]).ok();
    run(&["0000002A", "/", "-o", "remount,ro"]).fails(1, &["no VE is mounted there"]);
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let node = Node::stopped();
    let mut child = node.command(&["completions", "bash"]);
    let mut child = child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let said = Said::from(child.wait_with_output().unwrap());
    assert_eq!((said.status, said.err.as_str()), (0, ""));
}

/// The configuration reference in the manual is the one that the program makes.
#[test]
fn the_manual_has_the_present_configuration_reference() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let manual = std::fs::read_to_string(top.join("docs/operations.md")).unwrap();
    let reference = aspfs_tools::daemon::config::reference();
    assert!(manual.contains(&reference), "docs/operations.md lacks this (aspfsd config --reference):\n{reference}");
}
