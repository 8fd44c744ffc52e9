//! Opening a VE: the metadata store's state, then every frame of the journal behind it, applied by the same code that
//! applied them first. There is no other recovery.
//!
//! A frame can be in the journal while the bulk bytes it names never reached the disk. Frames that nothing says were flushed are
//! therefore kept only if their bytes check out; the first that does not ends the journal there, as a torn tail does.

use std::sync::Arc;

use super::feed::{Index, load_cursors};
use super::recent::Recent;
use super::replay::Loader;
use super::{Open, State, Ve, role};
use crate::base::BaseTree;
use crate::change::Settings;
use crate::content::extent_file::ExtentFiles;
use crate::error::{Error, Result};
use crate::format::identity::Identity;
use crate::format::role::{Role, RoleKind};
use crate::ids::{Hash, InodeNo, Position, TxnNo};
use crate::journal::{Journal, Scanner};
use crate::lock::Mutex;
use crate::meta::{Table, rows, rows::Head};
use crate::state::key::{Key, Value};
use crate::state::tables::{Tables, Usage};
use crate::state::view::View;
use crate::store::Shared;

/// What a replay found.
enum Replay {
    /// All frames are in.
    Done(Box<State>),
    /// The frame at this position, with this number, must not be taken.
    Cut(u64, u64),
}

impl Ve {
    /// Opens a VE whose identity is known; `stored` says that it is in the store already, which comes about when its first frame is
    /// durable. Everything that is in files is durable before this is called.
    pub(crate) fn open(shared: &Arc<Shared>, identity: Identity, stored: bool) -> Result<Arc<Ve>> {
        let role = role::load(shared, &identity)?;
        Ve::open_as(shared, identity, stored, role)
    }

    /// Opens it in this role.
    pub(crate) fn open_as(shared: &Arc<Shared>, identity: Identity, stored: bool, role: Role) -> Result<Arc<Ve>> {
        let base = shared.base(identity.base)?;
        // The journal of a VE that was made here has a frame from its first moment on; that of a follower has none before it was
        // sent something.
        let stored = stored && role.epoch == crate::ids::Epoch(0);
        let mut cut = None;
        let state = loop {
            match replay(shared, &identity, &role, stored, &base, cut)? {
                Replay::Done(state) => break *state,
                Replay::Cut(position, seq) => {
                    tracing::warn!(ve = %identity.ve, position, "journal tail names bytes that are not there, dropped");
                    cut = Some((position, seq));
                }
            }
        };
        let ve = Arc::new(Ve {
            id: identity.ve,
            slot: identity.slot,
            identity,
            shared: shared.clone(),
            state: Mutex::new(state),
            gate: Default::default(),
            publishing: Mutex::new(()),
            readers: Mutex::default(),
            watch: Default::default(),
            ahead: Default::default(),
            collecting: Default::default(),
            crowded: Default::default(),
            received: Default::default(),
        });
        if let Err(e) = ve.finish_open() {
            // Nobody will ever publish what this one has read.
            shared.space.release(ve.state.lock().inline());
            return Err(e);
        }
        Ok(ve)
    }

    /// Opens a state that was replaced and kept: it can be read and takes no changes.
    pub(crate) fn open_frozen(shared: &Arc<Shared>, identity: Identity) -> Result<Arc<Ve>> {
        let ve = Ve::open_as(shared, identity, true, role::alone(&identity))?;
        ve.state.lock().role.kind = RoleKind::Superseded;
        Ok(ve)
    }

    /// What was answered but not sealed becomes a transaction of its own.
    fn finish_open(&self) -> Result<()> {
        let mut s = self.state.lock();
        if let Some(Value::Settings(settings)) = s.tables.get(&Key::settings())? {
            s.settings = settings;
        }
        if s.open.records == 0 || s.check_writer().is_err() {
            return Ok(());
        }
        match s.seal(&self.shared) {
            // The tail stays open: it is durable as it is, and a full disk must not keep anybody from erasing (promise G4).
            Err(Error::NoSpace { .. }) => {
                self.shared.space.set_tight(true);
                return Ok(());
            }
            other => other?,
        }
        drop(s);
        self.sync()
    }
}

fn first_head(identity: &Identity) -> Head {
    Head {
        lineage: identity.lineage,
        epoch: identity.epoch,
        txn: TxnNo(0),
        chain: Hash([0; 32]),
        time: crate::clock::Timestamp::default(),
        journal: 0,
        seq: 0,
        bytes: 0,
        inodes: 0,
        next_ino: InodeNo::FIRST_PRIVATE,
        floor: TxnNo(0),
        history: 0,
    }
}

/// The state that the metadata store has, and the journal behind it.
fn begin<'a>(
    shared: &'a Arc<Shared>,
    identity: &Identity,
    stored: bool,
    base: &Arc<BaseTree>,
) -> Result<(Loader<'a>, Scanner, Recent)> {
    let ve = identity.slot;
    let row = shared.meta.get(Table::System, &rows::head(ve))?;
    // A state that came whole from another node has a head, and no journal before something follows it.
    let stored = stored && row.is_none();
    let head = match row {
        None => first_head(identity),
        Some(row) => rows::head_row(&row)?,
    };
    if head.lineage != identity.lineage {
        let detail = format!("metadata is of lineage {}, the VE of {}", head.lineage, identity.lineage);
        return Err(Error::Damage { what: "VE", place: ve.to_string(), detail });
    }
    let clean = match shared.meta.get(Table::System, &rows::clean(ve))? {
        None => None,
        Some(row) => Some(rows::decode::<(u64, u64)>("system", &row)?),
    };
    let storage = shared.storage.clone();
    // A journal without any frame is damage, also where no metadata says so.
    let marker = head.journal.max(u64::from(stored));
    let scanner = Scanner::open(storage.clone(), shared.store, ve, head.journal, head.seq, marker, clean)?;
    let files = ExtentFiles::open(ve, shared.store, storage, shared.options.extent_target)?;
    let tables = Tables {
        ve,
        active: Default::default(),
        frozen: None,
        spare: Default::default(),
        meta: shared.meta.clone(),
        base: base.clone(),
        fresh_from: head.next_ino,
        usage: Usage { bytes: head.bytes, inodes: head.inodes, next_ino: head.next_ino },
        found: Default::default(),
        maps: Default::default(),
        places: Default::default(),
    };
    let first = Position { lineage: head.lineage, epoch: head.epoch, txn: head.txn, chain: head.chain };
    let open = Open::after(head.chain, head.txn);
    let loader = Loader { shared, index: Index::new(first), tables, files, open, head, unproven: vec![] };
    let answered = match shared.meta.get(Table::System, &rows::answers(ve))? {
        None => Recent::default(),
        Some(row) => Recent::from_row(rows::decode("system", &row)?),
    };
    Ok((loader, scanner, answered))
}

fn replay(
    shared: &Arc<Shared>,
    identity: &Identity,
    role: &Role,
    stored: bool,
    base: &Arc<BaseTree>,
    cut: Option<(u64, u64)>,
) -> Result<Replay> {
    let (mut loader, mut scanner, mut answered) = begin(shared, identity, stored, base)?;
    let published = loader.head.journal;
    loop {
        let synced = match scanner.next_frame()? {
            None => break,
            Some(r) if cut.is_some_and(|(position, _)| r.position >= position) => break,
            Some(r) => {
                loader.take(&r, &mut answered)?;
                r.synced_upto
            }
        };
        loader.unproven.retain(|u| u.end > synced);
        if loader.open.records == 0 && loader.tables.active.bytes() >= shared.options.recovery_memory {
            if let Some((position, seq)) = loader.first_unproven()? {
                return Ok(Replay::Cut(position, seq));
            }
            loader.publish(&answered)?;
        }
    }
    if let Some((position, seq)) = loader.first_unproven()? {
        return Ok(Replay::Cut(position, seq));
    }
    // What a follower has of a transaction that it did not take whole is nothing (promise G9).
    if role.kind == RoleKind::Replica && loader.open.records > 0 {
        return Ok(Replay::Cut(loader.head.journal, loader.head.seq));
    }
    cut.map(|(position, seq)| scanner.reject(position, seq, "frame whose bytes are not there")).transpose()?;
    shared.space.hold(loader.tables.active.inline);
    // A restart that is no clean one may have lost transactions: their numbers come again, in a new epoch (promises G13, G18).
    let seen = loader.head.epoch.max(role.epoch);
    // Where others know of it, each restart of a writer is an epoch of its own: sessions are told apart by it.
    let keeps = scanner.is_clean() && (role.epoch == crate::ids::Epoch(0) || role.kind != RoleKind::Primary);
    let epoch = if keeps { seen } else { seen.restarted() };
    let sizes = (shared.options.segment_min, shared.options.segment_max);
    let (storage, entropy) = (shared.storage.clone(), shared.entropy.clone());
    let journal = Journal::new(identity.slot, shared.store, storage, entropy, sizes, scanner.into_tail()?);
    let Loader { tables, files, head, open, index, .. } = loader;
    Ok(Replay::Done(Box::new(State {
        // What was replayed counts: else starts that are killed early would replay more and more, and never persist it.
        written: journal.position().saturating_sub(published),
        tables,
        journal,
        files,
        settings: Settings::default(),
        head,
        open,
        epoch,
        frozen_head: None,
        answered,
        written_at: Default::default(),
        garbage: Vec::new(),
        quiet: Default::default(),
        encoded: Default::default(),
        role: *role,
        index,
        cursors: load_cursors(&*shared.meta, identity.slot)?,
        staged: Default::default(),
        hooks: Default::default(),
    })))
}
