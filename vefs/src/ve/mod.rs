//! One VE: its state behind one lock, its journal, its files; executing operations, committing, publishing, reading.
//!
//! Order of locks: `publishing` before `state`. Neither is held over a flush; `state` is held over a journal frame's write, which
//! goes to the page cache. Nothing here starts a thread.

mod ahead;
mod alike;
mod cleaning;
pub(crate) mod commit;
mod envelope;
mod execute;
mod feed;
mod follow;
mod gate;
mod gc;
pub(crate) mod hashing;
mod holds;
mod housekeep;
mod marks;
mod mounted;
mod mounting;
mod publish;
mod quiet;
mod reading;
mod recent;
mod recover;
mod replay;
pub(crate) mod role;
mod snapshot;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use envelope::{Envelope, Memo};
pub use execute::Request;
pub use feed::{Cursor, Feed, FeedPayload, FeedRecord, FeedTxn, Known};
pub use follow::ReceiveError;
pub(crate) use gc::objects_of_rows;
pub use gc::{Collected, Retention};
pub use holds::VersionRow;
pub(crate) use mounted::mounted_rows;
pub use reading::{Snapshot, Stat};
pub use snapshot::{Page, RANGE_MAX};
pub use watch::{Verdict, Watcher};

use crate::change::Settings;
use crate::content::extent_file::ExtentFiles;
use crate::error::Result;
use crate::format::identity::Identity;
use crate::ids::{Hash, Position, TxnNo, VeId};
use crate::journal::Journal;
use crate::limits;
use crate::lock::Mutex;
use crate::meta::rows::Head;
use crate::state::tables::Tables;
use crate::store::Shared;

/// A VE that is open for reading and writing.
pub struct Ve {
    pub(crate) id: VeId,
    /// The number under which its rows and files lie.
    pub(crate) slot: VeId,
    pub(crate) identity: Identity,
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: Mutex<State>,
    /// Who flushes, and who waits for it.
    pub(crate) gate: gate::Gate,
    /// Held by whoever publishes, takes a hold or collects garbage: one at a time.
    pub(crate) publishing: Mutex<()>,
    /// Versions that are being read, with the number of readers.
    pub(crate) readers: Mutex<BTreeMap<TxnNo, usize>>,
    /// Who follows it.
    pub(crate) watch: watch::Watch,
    /// Objects that wait for the record that names them, where this node follows.
    ahead: ahead::Ahead,
    /// Somebody collects history or removes extent files, with `publishing` held.
    collecting: std::sync::atomic::AtomicBool,
    /// The overlay has grown far too large: the next operation publishes it first.
    crowded: std::sync::atomic::AtomicBool,
    /// Transactions that were taken from another node, since this was opened.
    received: std::sync::atomic::AtomicU64,
}

/// What the lock protects.
pub(crate) struct State {
    pub tables: Tables,
    pub journal: Journal,
    pub files: ExtentFiles,
    pub settings: Settings,
    /// The last sealed transaction and the figures that go with it.
    pub head: Head,
    pub open: Open,
    /// The epoch that this run writes in.
    pub epoch: crate::ids::Epoch,
    /// What was true at the moment of the freeze, while something is frozen.
    pub frozen_head: Option<Frozen>,
    /// Answers that may not have reached the kernel.
    pub answered: recent::Recent,
    /// When files were written last, by `CLOCK_BOOTTIME`: what housekeeping looks at.
    pub written_at: std::collections::HashMap<crate::ids::InodeNo, std::time::Duration>,
    /// Extent files without live bytes, to be removed after the next checkpoint.
    pub garbage: Vec<u64>,
    /// Bytes of journal frames written since the last tick.
    pub written: u64,
    /// How long nothing was asked of it.
    pub quiet: quiet::Quiet,
    /// The body and the envelope of the record before, for their memory.
    pub encoded: (Vec<u8>, Vec<u8>),
    /// What this node does with the VE.
    pub role: crate::format::role::Role,
    /// Where sealed transactions lie in the journal.
    pub index: feed::Index,
    /// How far followers are.
    pub cursors: BTreeMap<[u8; 16], feed::Cursor>,
    /// Bulk payloads that came ahead of their records, where this node follows.
    pub staged: BTreeMap<crate::ids::PayloadId, follow::Staged>,
    /// Who follows it, and what forbids changes.
    pub hooks: watch::Hooks,
}

/// What goes with a frozen overlay.
#[derive(Clone)]
pub(crate) struct Frozen {
    /// The last transaction in it.
    pub head: Head,
    /// No private inode from this number on has a row below it.
    pub fresh_from: crate::ids::InodeNo,
    /// Answers that only its frames carry.
    pub answered: recent::Recent,
}

/// The transaction that is being filled.
pub(crate) struct Open {
    pub txn: TxnNo,
    pub records: u32,
    pub payload: u64,
    /// Bytes of its encoded bodies.
    pub bodies: u64,
    pub hasher: blake3::Hasher,
    /// Hashes of bulk payloads in record order.
    pub pending: Vec<Arc<hashing::PendingHash>>,
}

impl Open {
    /// The transaction after one with this chain hash.
    pub fn after(chain: Hash, txn: TxnNo) -> Open {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"aspfs chain 1");
        hasher.update(&chain.0);
        Open { txn: txn.next(), records: 0, payload: 0, bodies: 0, hasher, pending: Vec::new() }
    }

    /// Whether the next record has to go into another transaction.
    pub fn is_full(&self) -> bool {
        self.records >= limits::TXN_RECORDS_MAX
            || self.payload >= limits::TXN_PAYLOAD_MAX
            || self.bodies >= limits::TXN_BODIES_MAX
            || self.pending.len() >= limits::TXN_BESIDE_MAX
    }

    /// Takes a record's body into the chain hash.
    pub fn absorb(&mut self, body: &[u8]) {
        self.hasher.update(&(body.len() as u64).to_le_bytes());
        self.hasher.update(body);
        self.bodies += body.len() as u64;
        self.records += 1;
    }
}

impl Ve {
    /// Its identifier.
    pub fn id(&self) -> VeId {
        self.id
    }

    /// The number under which its rows and files lie.
    pub fn slot(&self) -> VeId {
        self.slot
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The position of its last sealed transaction.
    pub fn position(&self) -> Position {
        let s = self.state.lock();
        Position { lineage: s.head.lineage, epoch: s.head.epoch, txn: s.head.txn, chain: s.head.chain }
    }

    /// When its last transaction was sealed: a label.
    pub fn time(&self) -> crate::clock::Timestamp {
        self.state.lock().head.time
    }

    /// Charged bytes and private inodes.
    pub fn usage(&self) -> (u64, u64) {
        let u = self.state.lock().tables.usage;
        (u.bytes.max(0).unsigned_abs(), u.inodes.max(0).unsigned_abs())
    }

    /// What an administrator set.
    pub fn settings(&self) -> Settings {
        self.state.lock().settings.clone()
    }

    /// Why it is read-only, if it is.
    pub fn read_only_reason(&self) -> Option<String> {
        self.state.lock().journal.poisoned().map(str::to_owned)
    }

    /// Bytes of memory that unpublished state takes.
    pub fn overlay_bytes(&self) -> usize {
        let s = self.state.lock();
        s.tables.active.bytes() + s.tables.frozen.as_ref().map_or(0, |f| f.bytes())
    }

    /// Bytes of journal segments on disk.
    pub fn journal_bytes(&self) -> u64 {
        self.state.lock().journal.disk_bytes()
    }

    /// Journal position after the last frame, and up to where it is durable.
    pub fn journal_position(&self) -> (u64, u64) {
        let s = self.state.lock();
        (s.journal.position(), s.journal.durable())
    }

    /// Whether anything is not durable yet or not sealed.
    pub fn is_dirty(&self) -> bool {
        let s = self.state.lock();
        let flushed = s.journal.durable() == s.journal.position() && s.files.durable() == s.files.appended();
        s.open.records > 0 || !flushed
    }

    /// The answer to a request that an earlier run of the daemon carried out, if it did (promise G7).
    pub fn answered(&self, unique: u64) -> Option<Memo> {
        self.state.lock().answered.get(unique).cloned()
    }

    /// Forgets remembered answers: the kernel has sent again what it wanted to. The journal and the answers' row have them still, so a later start may
    /// remember them again: numbers of different mounts have to differ.
    pub fn forget_answers(&self) -> Result<()> {
        self.state.lock().answered.clear();
        Ok(())
    }
}
