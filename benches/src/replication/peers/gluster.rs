//! GlusterFS: replicate over two bricks, each a process of its own, without the management daemon: volume files say what it would have said.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::super::Asked;
use super::super::copies::InPlace;
use super::{Peer, run};

fn brick(dir: &Path, port: u16) -> String {
    format!(
        "volume posix\n type storage/posix\n option directory {}\nend-volume\n\
         volume locks\n type features/locks\n subvolumes posix\nend-volume\n\
         volume threads\n type performance/io-threads\n subvolumes locks\nend-volume\n\
         volume server\n type protocol/server\n option transport-type tcp\n \
         option transport.socket.bind-address 127.0.0.1\n option transport.socket.listen-port {port}\n \
         option auth.addr.threads.allow 127.0.0.1\n subvolumes threads\nend-volume\n",
        dir.display()
    )
}

fn client(ports: [u16; 2]) -> String {
    let remote = |(n, port): (usize, u16)| {
        format!(
            "volume c{n}\n type protocol/client\n option transport-type tcp\n option remote-host 127.0.0.1\n \
             option remote-port {port}\n option remote-subvolume threads\nend-volume\n"
        )
    };
    let remotes: String = ports.into_iter().enumerate().map(remote).collect();
    format!(
        "{remotes}volume both\n type cluster/replicate\n option afr-pending-xattr c0,c1\n subvolumes c0 c1\nend-volume\n\
         volume behind\n type performance/write-behind\n subvolumes both\nend-volume\n"
    )
}

/// A port that is free now.
fn port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Two bricks and a mount.
pub fn set_up(asked: &Asked<'_>, folder: &Path) -> Result<Peer> {
    let ports = [port()?, port()?];
    let root = folder.join("root");
    std::fs::create_dir_all(&root)?;
    let mut writer = 0;
    for (n, port) in ports.into_iter().enumerate() {
        let dir = folder.join(format!("brick-{n}"));
        std::fs::create_dir_all(&dir)?;
        let file = folder.join(format!("brick-{n}.vol"));
        std::fs::write(&file, brick(&dir, port))?;
        writer = start(asked, Command::new("glusterfsd").arg("-N").arg("-f").arg(file), folder)?;
        wait("a brick", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    }
    let file = folder.join("client.vol");
    std::fs::write(&file, client(ports))?;
    asked.undo.unmount(root.clone());
    start(asked, Command::new("glusterfs").arg("-N").arg("-f").arg(file).arg(&root), folder)?;
    // Until both bricks are there.
    wait("the mount", || {
        let probe = run(Command::new("mkdir").arg(root.join("probe")));
        probe.is_ok() && (0..2).all(|n| folder.join(format!("brick-{n}/probe")).exists())
    })?;
    Ok(Peer { root, copies: Box::new(InPlace { dir: folder.join("brick-1"), writer }) })
}

fn start(asked: &Asked<'_>, command: &mut Command, folder: &Path) -> Result<i32> {
    command.arg("-l").arg(folder.join("log")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().context("GlusterFS")?;
    let pid = child.id().cast_signed();
    asked.undo.kill(child);
    Ok(pid)
}

fn wait(what: &str, mut there: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !there() {
        if begun.elapsed() > Duration::from_secs(20) {
            bail!("{what} did not come up");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
