//! The control socket against whoever does not keep to the protocol: it says why, changes nothing, and serves the next one.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use aspfs_tests::hostile_control::{self, frame_of as frame};
use aspfs_tests::node::{Node, Said, programs};
use aspfs_tests::opgen::Rng;
use aspfs_tools::client::{Client, ClientError};
use aspfs_tools::control::conn::Conn;
use aspfs_tools::control::frame::Kind;
use aspfs_tools::control::message::{Hello, Refusal, Request, Why};
use aspfs_tools::template::event::Event;

fn connect(node: &Node) -> UnixStream {
    let socket = UnixStream::connect(node.socket()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

/// The daemon's last word.
fn last_word(conn: &mut Conn) -> Option<Refusal> {
    let mut said = None;
    while let Ok(Some(frame)) = conn.recv() {
        if frame.kind == Kind::Refusal {
            said = Some(frame.parse().unwrap());
        }
    }
    said
}

fn still_serves(node: &Node) {
    let status = node.client().status().unwrap();
    assert_eq!(status.pid, node.pid());
}

/// checks G29
#[test]
fn hostile_bytes_are_refused_and_the_next_client_is_served() {
    let node = Node::start();
    let hello = serde_json::to_vec(&Hello::ours()).unwrap();
    let greeted = |rest: &[u8]| [&frame(Kind::Hello, &hello)[..], rest].concat();
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a frame of 4 GiB", vec![Kind::Hello as u8, 255, 255, 255, 255]),
        ("half a header", vec![Kind::Hello as u8, 1]),
        ("half a frame", vec![Kind::Hello as u8, 10, 0, 0, 0, b'{']),
        ("no JSON", frame(Kind::Hello, b"\xff\xfe")),
        ("deep JSON", frame(Kind::Hello, &vec![b'['; 200_000])),
        ("an answer", frame(Kind::Answer, b"{}")),
        ("a request without a greeting", frame(Kind::Request, br#"{"do":"status"}"#)),
        ("a future protocol", frame(Kind::Hello, br#"{"protocol":99,"release":"9.9.9"}"#)),
        ("an unknown request", greeted(&frame(Kind::Request, br#"{"do":"format-disk"}"#))),
        ("a bad identifier", greeted(&frame(Kind::Request, br#"{"do":"ve-destroy","ve":"2A"}"#))),
        ("data", greeted(&frame(Kind::Data, &[0; 1000]))),
        ("a second greeting", greeted(&frame(Kind::Hello, &hello))),
        (
            "an import of no event",
            greeted(
                &[
                    frame(Kind::Request, br#"{"do":"template-import","name":"t","source":"s"}"#),
                    frame(Kind::Data, b"\x01\xff\xff"),
                ]
                .concat(),
            ),
        ),
    ] {
        let mut socket = connect(&node);
        let _ = socket.write_all(&bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let said = last_word(&mut Conn::client(socket));
        let whole = !matches!(what, "nothing" | "half a header" | "half a frame");
        assert_eq!(said.is_some(), whole, "{what}: {said:?}");
        assert!(said.is_none_or(|s| s.kind == Why::Usage && !s.message.is_empty()), "{what}");
        still_serves(&node);
    }
    assert_eq!(node.aspfs(&["--json", "ve", "list"]).ok().trim(), "[]");
    assert_eq!(node.aspfs(&["--json", "template", "list"]).ok().trim(), "[]");
}

#[test]
fn descriptors_that_come_are_not_kept() {
    let node = Node::start();
    let count = || std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count();
    still_serves(&node);
    let before = count();
    let mut conns = Vec::new();
    for _ in 0..8 {
        let mut conn = Conn::client(connect(&node));
        conn.recv().unwrap();
        let (a, _b) = UnixStream::pair().unwrap();
        let hello = serde_json::to_vec(&Hello::ours()).unwrap();
        conn.send_with(Kind::Hello, &hello, &[std::os::fd::AsFd::as_fd(&a)]).unwrap();
        drop(a);
        // Whoever would have it holds the other end open.
        let mut b = _b;
        b.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert_eq!(b.read(&mut [0]).unwrap(), 0, "the daemon keeps a descriptor");
        conns.push(conn);
    }
    drop(conns);
    still_serves(&node);
    let mut node = node;
    node.wait_for("the descriptors of clients that left", |node| {
        let now = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count();
        (now <= before).then_some(())
    });
}

/// checks G29
#[test]
fn decoders_take_anything() {
    let mut rng = Rng::new(29);
    let seeds = hostile_control::seeds();
    seeds.iter().for_each(|seed| hostile_control::run(seed));
    for _ in 0..20_000 {
        let seed = rng.below(seeds.len() as u64) as usize;
        let mut bytes = seeds[seed].clone();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(4) {
                0 => bytes[at] ^= 1 << rng.below(8),
                1 => bytes[at] = rng.pick(&[0, 255, b'"', b'{', b'9', b'-']),
                2 => bytes.truncate(at + 1),
                _ => bytes.insert(at, rng.next_u64() as u8),
            }
        }
        hostile_control::run(&bytes);
    }
}

/// checks G30
#[test]
fn another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: not root, cannot be another user");
        return;
    }
    let node = Node::start();
    let folder = node.socket().parent().unwrap().to_owned();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    let program = node.path("aspfs");
    std::fs::copy(programs().join("aspfs"), &program).unwrap();
    let run = |args: &[&str]| -> Said {
        Command::new(&program)
            .args(args)
            .env("ASPFS_SOCKET", node.socket())
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap()
            .into()
    };
    run(&["status"]).fails(1, &["only root"]);
    // Even where the socket's mode lets everybody connect, the kernel's word on who it is counts.
    std::fs::set_permissions(node.socket(), PermissionsExt::from_mode(0o666)).unwrap();
    for args in [&["status"][..], &["ve", "create", "0000002A"], &["daemon", "stop"]] {
        run(args).fails(1, &["only root"]);
    }
    still_serves(&node);
    assert_eq!(node.aspfs(&["--json", "ve", "list"]).ok().trim(), "[]");
}

#[test]
fn there_are_no_more_clients_than_allowed() {
    let mut node = Node::with(&["--connections", "2"]);
    let idle: Vec<UnixStream> = (0..2).map(|_| connect(&node)).collect();
    for mut socket in &idle {
        // The daemon's greeting: it is being served.
        socket.read_exact(&mut [0; 5]).unwrap();
    }
    let Err(refused) = Client::connect(&node.socket()) else { panic!("a third client is served") };
    let ClientError::Refused(refused) = refused else { panic!("{refused}") };
    assert_eq!(refused.kind, Why::Busy);
    drop(idle);
    node.wait_for("a free place", |node| Client::connect(&node.socket()).ok());
}

#[test]
fn a_client_that_goes_away_takes_its_import_with_it() {
    let mut node = Node::start();
    let request = Request::TemplateImport { name: "t".into(), source: "s".into() };
    let mut client = node.client();
    client.begin(&request).unwrap();
    let what = aspfs_tools::template::event::What::File { size: 1 << 20, sparse: false };
    let event = Event::Node { parent: 0, name: b"big".to_vec(), meta: Default::default(), what };
    client.data(&event.encode()).unwrap();
    client.data(&Event::Data { offset: 0, bytes: vec![7; 1 << 19] }.encode()).unwrap();
    drop(client);
    // Staging files are gone as well when the daemon has noticed.
    node.wait_for("the end of the import", |node| {
        let left = std::fs::read_dir(node.path("store/staging")).map(|d| d.count()).unwrap_or(0);
        (left == 0).then_some(())
    });
    assert_eq!(node.aspfs(&["--json", "template", "list"]).ok().trim(), "[]");
    let mut again = node.client();
    again.begin(&request).unwrap();
    again.data(&Event::End.encode()).unwrap();
    again.finish::<serde_json::Value>(&mut |_| {}).unwrap();
    assert!(node.aspfs(&["template", "list"]).ok().contains('t'));
}

/// Each import may hold gigabytes in memory, and there could be as many as clients.
#[test]
fn some_imports_go_on_at_once_and_no_more() {
    let mut node = Node::start();
    let (tell, told) = std::sync::mpsc::channel();
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let (mut conn, tell) = (Conn::client(connect(&node)), tell.clone());
            conn.send_message(Kind::Hello, &Hello::ours()).unwrap();
            let request = Request::TemplateImport { name: format!("t{n}"), source: "s".into() };
            conn.send_message(Kind::Request, &request).unwrap();
            // Those that are not refused go on until the daemon stops.
            std::thread::spawn(move || drop(last_word(&mut conn).map(|said| tell.send(said))))
        })
        .collect();
    for _ in 0..4 {
        let refused = told.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(refused.kind == Why::Busy && refused.message.contains("4 imports"), "{refused:?}");
    }
    assert!(told.recv_timeout(Duration::from_millis(300)).is_err(), "a fifth was refused");
    assert_eq!(node.term(), 0);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_refused_import_says_why_to_a_client_that_is_still_sending() {
    let node = Node::start();
    let mut client = node.client();
    client.begin(&Request::TemplateImport { name: "t".into(), source: "s".into() }).unwrap();
    let event = Event::Xattr { name: b"user.x".to_vec(), value: vec![0; 1 << 20] }.encode();
    let refused = (0..1000).find_map(|_| client.data(&event).err());
    let Some(ClientError::Refused(refused)) = refused else { panic!("{refused:?}") };
    assert!(refused.message.contains("template t") || refused.kind == Why::Usage, "{refused:?}");
    still_serves(&node);
}

#[test]
fn a_stop_ends_conversations_that_wait() {
    let mut node = Node::start();
    let _idle = connect(&node);
    assert_eq!(node.term(), 0);
}
