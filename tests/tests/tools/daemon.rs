//! Starting and stopping the daemon, what it refuses to start on, and VEs without mounts.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use aspfs_tests::node::{Node, Said};
use aspfs_tools::client::ClientError;
use aspfs_tools::control::message::{Change, Id, Request, VeRow, Why};
use vefs::ids::VeId;

fn tries(node: &Node, args: &[&str]) -> Said {
    let mut command = node.daemon_command();
    command.args(args).stdin(Stdio::null()).output().unwrap().into()
}

#[test]
fn a_missing_folder_becomes_a_store_and_is_one_again() {
    let mut node = Node::start();
    node.aspfs(&["ve", "create", "0000002A", "--quota", "1.5G", "--inodes", "1000"]).ok();
    let holder = node.holder();
    assert_eq!(node.term(), 0);
    assert!(!node.socket().exists(), "the socket stays behind");
    assert!(!Node::runs(holder), "a holder of nothing stays behind");
    node.up();
    let row: serde_json::Value = serde_json::from_str(&node.aspfs(&["--json", "ve", "show", "0000002a"]).ok()).unwrap();
    assert_eq!(row["ve"], "0000002A");
    assert_eq!(row["bytes_limit"], 3u64 << 29);
    assert_eq!(row["inodes_limit"], 1000);
}

#[test]
fn a_store_has_one_daemon() {
    let node = Node::start();
    node.aspfs(&["ve", "create", "0000002A"]).ok();
    let other = node.path("other.sock");
    tries(&node, &["--socket", other.to_str().unwrap()]).fails(1, &["in use", node.path("store").to_str().unwrap()]);
    assert!(!other.exists());
    let elsewhere = node.path("elsewhere");
    tries(&node, &["--store", elsewhere.to_str().unwrap()])
        .fails(1, &["another daemon", node.socket().to_str().unwrap()]);
    assert!(node.aspfs(&["ve", "list"]).ok().contains("0000002A"));
}

#[test]
fn what_is_no_store_is_left_alone() {
    let node = Node::stopped();
    let store = node.folder("store");
    std::fs::write(store.join("precious"), "data").unwrap();
    tries(&node, &[]).fails(1, &["no store here", store.to_str().unwrap()]);
    let left: Vec<_> = std::fs::read_dir(&store).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["precious"]);
}

#[test]
fn a_bad_configuration_starts_nothing_and_ends_with_2() {
    let node = Node::stopped();
    let file = node.path("aspfsd.toml");
    for (text, args, said) in [
        ("tock = \"1s\"", &[][..], &["tock", "aspfsd.toml"][..]),
        ("tick = ", &[], &["aspfsd.toml"]),
        ("", &["--tick", "1ms"], &["tick"]),
        ("", &["--retention", "never"], &["retention"]),
        ("log = \"loud\"", &[], &["log", "loud"]),
        ("", &["--wrong"], &["--wrong"]),
    ] {
        std::fs::write(&file, text).unwrap();
        tries(&node, &[&["--config", file.to_str().unwrap()], args].concat()).fails(2, said);
        assert!(!node.path("store").exists() && !node.path("run").exists(), "{text} {args:?}");
    }
    tries(&node, &["--config", "/nowhere.toml"]).fails(2, &["/nowhere.toml"]);
}

#[test]
fn the_effective_configuration_is_printed() {
    let node = Node::stopped();
    let file = node.path("aspfsd.toml");
    std::fs::write(&file, "tick = \"2s\"\nlog = \"debug\"\n").unwrap();
    let text = tries(&node, &["--config", file.to_str().unwrap(), "--tick", "3s", "config"]).ok();
    assert!(
        text.contains("tick = \"3s\"") && text.contains("log = \"debug\"") && text.contains("reserve = \"64M\""),
        "{text}"
    );
    std::fs::write(&file, &text).unwrap();
    let again = tries(&node, &["--config", file.to_str().unwrap(), "config"]).ok();
    assert_eq!(again, text);
    assert!(!node.path("store").exists());
}

#[test]
fn folders_that_others_may_write_to_are_refused() {
    let node = Node::stopped();
    let run = node.folder("run");
    std::fs::set_permissions(&run, PermissionsExt::from_mode(0o777)).unwrap();
    tries(&node, &[]).fails(1, &["runtime folder", run.to_str().unwrap()]);
    assert!(!node.path("store").exists());
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let node = Node::stopped();
    std::fs::write(node.socket(), "data").unwrap();
    tries(&node, &[]).fails(1, &["control socket", "left alone"]);
    assert_eq!(std::fs::read_to_string(node.socket()).unwrap(), "data");
}

#[test]
fn the_socket_is_for_its_owner_only() {
    let node = Node::start();
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(node.socket()), 0o600);
    assert_eq!(mode(node.path("run")), 0o700);
    let sockets = std::fs::read_dir(node.path("run")).unwrap().map(|e| e.unwrap().path());
    assert_eq!(sockets.map(mode).collect::<Vec<_>>(), [0o600]);
}

#[test]
fn a_killed_daemon_is_followed_by_another() {
    let mut node = Node::start();
    node.aspfs(&["ve", "create", "0000002A", "--quota", "1G"]).ok();
    let holder = node.holder();
    for _ in 0..3 {
        node.kill();
        assert!(node.socket().exists(), "nobody removed it");
        node.up();
        assert_eq!(node.holder(), holder, "the holder is found again");
        assert!(node.aspfs(&["ve", "list"]).ok().contains("0000002A"));
    }
}

#[test]
fn ves_are_created_set_and_destroyed() {
    let node = Node::start();
    node.aspfs(&["ve", "create", "0000002A", "--quota", "1G"]).ok();
    node.aspfs(&["ve", "create", "0000002a"]).fails(1, &["0000002A", "exists"]);
    node.aspfs(&["ve", "create", "00000000"]).fails(1, &["00000000"]);
    node.aspfs(&["ve", "create", "0000002B", "--template", "nowhere"]).fails(1, &["no template nowhere"]);
    assert!(node.aspfs(&["ve", "set", "0000002A", "--quota", "2G"]).ok().contains("of 2.00G"));
    node.aspfs(&["ve", "set", "0000002B", "--quota", "2G"]).fails(1, &["no VE 0000002B"]);
    let list = node.aspfs(&["ve", "list"]).ok();
    assert!(list.contains("0000002A") && list.contains("2.00G") && !list.contains("0000002B"), "{list}");
    node.aspfs(&["ve", "destroy", "0000002A"]).ok();
    node.aspfs(&["ve", "show", "0000002A"]).fails(1, &["no VE 0000002A"]);
    node.aspfs(&["ve", "destroy", "0000002A"]).fails(1, &["no VE 0000002A"]);
    assert!(!node.aspfs(&["ve", "list"]).ok().contains("0000002A"));
}

/// A change whose second part was refused had its first part made: a VE had another quota, or was there at all, though the answer was no. What is
/// refused changes nothing.
#[test]
fn a_refused_change_of_settings_changes_nothing() {
    let node = Node::start();
    node.aspfs(&["ve", "create", "0000002A", "--quota", "1G"]).ok();
    let change = |priority| Change { quota: Some(2 << 30), priority: Some(priority), ..Change::default() };
    let id = |n| Id(VeId(n));
    let refused = node.client().call::<VeRow>(&Request::VeSet { ve: id(0x2A), change: change(0) });
    let Err(ClientError::Refused(refused)) = refused else { panic!("{refused:?}") };
    assert!(refused.kind == Why::Usage && refused.message.contains("weight"), "{refused:?}");
    let row: VeRow = node.client().call(&Request::VeShow { ve: id(0x2A) }).unwrap();
    assert_eq!((row.bytes_limit, row.priority != 0), (1 << 30, true));
    let create = Request::VeCreate { ve: id(0x2B), templates: vec![], change: change(0) };
    assert!(node.client().call::<VeRow>(&create).is_err());
    node.aspfs(&["ve", "show", "0000002B"]).fails(1, &["no VE 0000002B"]);
    let row: VeRow = node.client().call(&Request::VeSet { ve: id(0x2A), change: change(3) }).unwrap();
    assert_eq!((row.bytes_limit, row.priority), (2 << 30, 3));
}

/// One damaged label among the templates, and no VE could be listed, shown, created or set any more.
#[test]
fn a_damaged_label_is_named_and_nothing_else_fails() {
    let node = Node::start();
    let source = node.folder("source");
    for name in ["good", "bad"] {
        node.aspfs(&["template", "import", name, source.to_str().unwrap()]).ok();
    }
    let label = node.path("store/templates/bad.label");
    let mut bytes = std::fs::read(&label).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&label, bytes).unwrap();
    node.aspfs(&["ve", "create", "0000002A", "--template", "good"]).ok();
    assert!(node.aspfs(&["ve", "show", "0000002A"]).ok().contains("good"));
    assert!(node.aspfs(&["ve", "list"]).ok().contains("0000002A"));
    node.aspfs(&["ve", "set", "0000002A", "--quota", "2G"]).ok();
    let list = node.aspfs(&["template", "list"]).ok();
    assert!(list.contains("good") && list.lines().any(|l| l.starts_with("bad ") && l.contains("template")), "{list}");
    node.aspfs(&["template", "show", "bad"]).fails(1, &["bad"]);
}

#[test]
fn holds_are_kept_across_a_kill() {
    let mut node = Node::start();
    node.aspfs(&["ve", "create", "0000002A"]).ok();
    node.aspfs(&["hold", "add", "0000002A", "first", "--owner", "me"]).ok();
    node.aspfs(&["hold", "add", "0000002A", "first"]).fails(1, &["first", "already"]);
    node.aspfs(&["hold", "add", "0000002A", ""]).fails(2, &["name"]);
    node.aspfs(&["hold", "add", "0000002A", "later", "--at", "999999"]).fails(1, &["no version 999999"]);
    node.aspfs(&["hold", "add", "0000002A", "old", "--at", "1990-01-01T00:00:00Z"]).fails(1, &["1990-01-01"]);
    node.kill();
    node.up();
    let list = node.aspfs(&["hold", "list", "0000002A"]).ok();
    assert!(list.contains("first") && list.contains("me"), "{list}");
    node.aspfs(&["hold", "release", "0000002A", "second"]).fails(1, &["second"]);
    node.aspfs(&["hold", "release", "0000002A", "first"]).ok();
    assert_eq!(node.aspfs(&["--json", "hold", "list", "0000002A"]).ok().trim(), "[]");
    assert!(node.aspfs(&["gc"]).ok().contains("versions forgotten"));
}

#[test]
fn templates_come_in_and_serve_ves() {
    let node = Node::start();
    let source = node.folder("source");
    std::fs::write(source.join("motd"), "hello\n").unwrap();
    let source = source.to_str().unwrap();
    assert!(node.aspfs(&["template", "import", "t", source]).ok().contains("2 files"));
    node.aspfs(&["template", "import", "t", source]).ok();
    std::fs::write(node.path("source/more"), "more\n").unwrap();
    node.aspfs(&["template", "import", "t", source]).fails(1, &["template t is there already"]);
    node.aspfs(&["template", "import", "u", source]).ok();
    node.aspfs(&["template", "import", "v", "/nowhere"]).fails(1, &["/nowhere"]);
    node.aspfs(&["ve", "create", "0000002A", "--template", "t,u"]).ok();
    assert!(node.aspfs(&["template", "show", "t"]).ok().contains("0000002A"));
    node.aspfs(&["template", "remove", "t"]).fails(1, &["in use by VE 0000002A"]);
    assert!(node.aspfs(&["template", "verify", "u"]).ok().contains("0 damaged"));
    assert_eq!(node.aspfs(&["cat", "0000002A", "/more"]).ok(), "more\n");
    node.aspfs(&["ve", "destroy", "0000002A"]).ok();
    node.aspfs(&["template", "remove", "t"]).ok();
    node.aspfs(&["template", "show", "t"]).fails(1, &["no template t"]);
}

#[test]
fn a_client_can_stop_the_daemon() {
    let mut node = Node::start();
    node.aspfs(&["daemon", "stop"]).ok();
    assert_eq!(node.ended(), 0);
    assert!(!Node::runs(node.holder()));
}

/// The metadata are damaged: the daemon does not start on them, one that is told to makes them anew, and all that was answered is there (checks G32).
#[test]
fn damaged_metadata_are_made_anew_by_who_is_told_to() {
    let mut node = Node::start();
    let ve = || vec!["ve", "create", "0000002A", "--quota", "1G"];
    node.aspfs(&ve()).ok();
    node.aspfs(&["gc"]).ok();
    node.aspfs(&["ve", "set", "0000002A", "--quota", "3G"]).ok();
    node.aspfs(&["ve", "create", "0000002B", "--quota", "2G"]).ok();
    assert_eq!(node.term(), 0);
    let meta = node.path("store/meta");
    std::fs::write(meta.join("CURRENT"), "MANIFEST-999999\n").unwrap();
    tries(&node, &[]).fails(1, &["MANIFEST-999999"]);
    let shown = |node: &Node, ve| {
        let row: serde_json::Value = serde_json::from_str(&node.aspfs(&["--json", "ve", "show", ve]).ok()).unwrap();
        row["bytes_limit"].as_u64().unwrap() >> 30
    };
    let flags = std::mem::replace(node.flags(), vec!["--rebuild-metadata".into()]);
    node.up();
    assert_eq!((shown(&node, "0000002A"), shown(&node, "0000002B")), (3, 2));
    assert_eq!(node.term(), 0);
    let replaced = std::fs::read_to_string(node.path("store/meta.replaced/CURRENT")).unwrap();
    assert_eq!(replaced, "MANIFEST-999999\n");
    *node.flags() = flags;
    node.up();
    assert_eq!((shown(&node, "0000002A"), shown(&node, "0000002B")), (3, 2));
}
