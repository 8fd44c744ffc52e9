//! What the network between nodes costs: two nodes in one process over 127.0.0.1, everything encrypted and authenticated. Frames of bulk
//! payload one way, and a frame there and back.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use aspfs_replica::cluster::Cluster;
use aspfs_replica::net::{AnswerWriter, FrameReader, FrameWriter, Handler, Peer, Settings, Transport};
use aspfs_replica::node::NodeId;
use aspfs_replica::wire::{self, CHUNK_MAX, Envelope, Message, WirePayload, WireRecord};
use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use vefs::clock::SystemClock;

use crate::bed::{Ground, noise, process_cpu};
use crate::outcome::{Figure, Outcome};

/// Takes records and answers pings.
struct Sinking;

impl Handler for Sinking {
    async fn frames(&self, _from: NodeId, mut writer: FrameWriter, mut reader: FrameReader) {
        while let Ok(Some((envelope, message))) = reader.next().await {
            let Message::Ping(n) = message else { continue };
            if writer.send(wire::encode(&Message::Pong(n), envelope, false)).await.is_err() {
                return;
            }
        }
        let _ = writer.finish().await;
    }

    async fn request(&self, _from: NodeId, _request: Bytes, _answers: AnswerWriter) {}
}

struct Pair {
    runtime: Runtime,
    dialler: Transport,
    _listener: Transport,
    peer: Peer,
}

fn pair(dir: &Path, mtu: u16) -> Result<Pair> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (any, clock) = ("127.0.0.1:0".parse()?, Arc::new(SystemClock));
    let one = Cluster::init(&dir.join("one"), &"bench".parse()?, &"one".parse()?, &[], clock.clone())?;
    let two = Arc::new(Cluster::join(&dir.join("two"), &one.add_node(&"two".parse()?, &[])?, clock)?);
    let settings = Settings { mtu, ..Settings::default() };
    let listener = Transport::start(runtime.handle(), two.clone(), any, Arc::new(Sinking), settings.clone())?;
    one.set_addresses("two", &[listener.local_addr().to_string().parse()?])?;
    let dialler = Transport::start(runtime.handle(), Arc::new(one), any, Arc::new(Sinking), settings)?;
    let peer = runtime.block_on(dialler.connect(two.node()))?;
    Ok(Pair { runtime, dialler, _listener: listener, peer })
}

/// Bulk one way in packets for Ethernet and for jumbo frames, and round trips.
pub fn measure(ground: &Ground) -> Result<Outcome> {
    let mut out = Outcome { title: "transport: two nodes over loopback, one process".into(), ..Default::default() };
    for mtu in [1452, 6500] {
        let dir = ground.path().join(format!("transport-{mtu}"));
        std::fs::create_dir_all(&dir)?;
        bulk(ground, &pair(&dir, mtu)?, mtu, &mut out)?;
        std::fs::remove_dir_all(&dir)?;
    }
    out.notes.push("frames of 256 KiB, encoded, sent, received, checked and decoded; CPU is that of both nodes".into());
    out.notes.push(ground.note()?);
    Ok(out)
}

fn bulk(ground: &Ground, pair: &Pair, mtu: u16, out: &mut Outcome) -> Result<()> {
    let frames = ground.size(2048, 16);
    let data = noise(CHUNK_MAX, 3);
    let (mut rates, mut cpus, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ground.rounds(5) {
        let (took, cpu, trip) = pair.runtime.block_on(async {
            let (mut writer, mut reader) = pair.peer.open().await?;
            let ping = |n| wire::encode(&Message::Ping(n), Envelope::default(), false);
            let (begun, used) = (Instant::now(), process_cpu());
            for _ in 0..frames {
                let record = WireRecord { body: vec![1], payload: Some(WirePayload::Inline(data.to_vec())) };
                let records = Message::Records(vec![record]);
                writer.send(wire::encode(&records, Envelope::default(), false)).await?;
            }
            // The answer says that everything before it has been taken in.
            writer.send(ping(0)).await?;
            reader.next().await?.context("no answer")?;
            let (took, cpu) = (begun.elapsed(), process_cpu() - used);
            let times = ground.size(2000, 20);
            let begun = Instant::now();
            for n in 0..times {
                writer.send(ping(n as u64)).await?;
                if reader.next().await?.map(|(_, m)| m) != Some(Message::Pong(n as u64)) {
                    bail!("another answer");
                }
            }
            Ok((took, cpu, begun.elapsed() / times as u32))
        })?;
        let gigabytes = (frames * CHUNK_MAX) as f64 / 1e9;
        rates.push(gigabytes / took.as_secs_f64());
        cpus.push(cpu.as_secs_f64() / gigabytes);
        trips.push(trip.as_secs_f64() * 1e6);
    }
    out.figures.push(Figure::info(format!("packets to {mtu}: bulk, one stream"), "GB/s", rates));
    out.figures.push(Figure::info(format!("packets to {mtu}: CPU of both nodes"), "s/GB", cpus));
    out.figures.push(Figure::info(format!("packets to {mtu}: a frame there and back"), "µs", trips));
    let stats = pair.dialler.stats();
    let stats = stats.first().context("no counters")?;
    let over = stats.udp.sent as f64 / stats.payload.sent as f64 - 1.0;
    out.figures.push(Figure::info(format!("packets to {mtu}: UDP payload beyond frames"), "%", vec![over * 100.0]));
    out.notes
        .push(format!("packets to {mtu}: {} of {} datagrams were held to be lost", stats.lost, stats.datagrams.sent));
    Ok(())
}
