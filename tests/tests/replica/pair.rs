//! Two stores, and a VE whose history goes from one to the other without any wire.

use std::sync::Arc;

use aspfs_tests::harness::{World, create_ve, empty_tree, small_options};
use aspfs_tests::model::Model;
use aspfs_tests::opgen::{self, Rng};
use vefs::Ve;
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, VeId};
use vefs::op::Op;
use vefs::storage::Storage;
use vefs::storage::memory::MemStorage;
use vefs::store::Store;
use vefs::ve::{Feed, FeedPayload, FeedTxn, Known, ReceiveError, Request};

pub const VE: VeId = VeId(7);
pub const NODE: [u8; 16] = [2; 16];

/// A store in memory that can be killed, or lose power.
pub struct Side {
    pub world: World,
    pub store: Arc<Store>,
}

impl Side {
    pub fn new(seed: u64) -> Side {
        Side::on(Arc::new(MemStorage::default()), seed)
    }

    pub fn on(storage: Arc<dyn Storage>, seed: u64) -> Side {
        let mut world = World::create(storage, seed, small_options()).unwrap();
        let store = world.open().unwrap();
        Side { world, store }
    }

    pub fn ve(&self) -> Arc<Ve> {
        self.store.ve(VE).unwrap()
    }

    /// The process is killed and starts again.
    pub fn kill(&mut self) {
        self.world.lose_unpersisted();
        self.store = self.world.open().unwrap();
    }
}

/// A VE at its primary, written by random operations that a model takes part in, and at a replica.
pub struct Pair {
    pub primary: Side,
    pub replica: Side,
    pub rng: Rng,
    pub model: Model,
}

impl Pair {
    pub fn new(seed: u64) -> Pair {
        Pair::of(Side::new(seed), Side::new(seed + 1000), seed)
    }

    pub fn of(primary: Side, replica: Side, seed: u64) -> Pair {
        let ve = create_ve(&primary.store, VE.0, 1 << 30, 10_000).unwrap();
        ve.set_cursor(NODE, vefs::ids::TxnNo(0)).unwrap();
        let lineage = ve.identity().lineage;
        replica.store.create_follower(VE, lineage, empty_tree(), Epoch(1)).unwrap();
        Pair { primary, replica, rng: Rng::new(seed), model: Model::new(1 << 30, 10_000) }
    }

    /// So many random operations at the primary.
    pub fn write(&mut self, operations: usize) {
        let ve = self.primary.ve();
        for _ in 0..operations {
            self.primary.world.clock.advance(std::time::Duration::from_millis(3));
            let op = opgen::next_op(&mut self.rng, &self.model);
            let _ = self.execute(&ve, &op);
        }
    }

    fn execute(&mut self, ve: &Ve, op: &Op) -> vefs::Result<()> {
        let now = self.primary.world.now();
        let done = ve.execute(op, Request::default());
        let _ = self.model.apply(op, now);
        done.map(|_| ())
    }

    /// Everything that is durable at the primary goes over.
    pub fn ship(&mut self) {
        let (from, to) = (self.primary.ve(), self.replica.ve());
        while let Feed::Txn(txn) = from.feed(to.position().txn).unwrap() {
            ship(&from, &to, &txn).unwrap();
        }
        to.sync().unwrap();
        from.set_cursor(NODE, to.durable_position().txn).unwrap();
    }

    /// The replica's head is a version of the primary (checks G9).
    pub fn is_a_version(&self) {
        let head = self.replica.ve().position();
        assert_eq!(self.primary.ve().position_at(head.txn).unwrap(), Known::Here(head));
    }

    /// Both sides are one (checks G13).
    pub fn same(&self) {
        let (a, b) = (self.primary.ve(), self.replica.ve());
        assert_eq!(a.durable_position(), b.durable_position());
        let txn = b.position().txn;
        let root = |ve: &Arc<Ve>| ve.version(txn).unwrap().state_root().unwrap();
        assert_eq!(root(&a).root, root(&b).root, "roots at {txn}");
        // What a scrub of two sides compares.
        let logical = |ve: &Arc<Ve>| ve.version(txn).unwrap().logical_root().unwrap();
        assert_eq!(logical(&a), logical(&b), "logical roots at {txn}");
        assert_eq!(a.usage(), b.usage());
        assert_eq!(b.role().kind, RoleKind::Replica);
    }
}

/// Puts a transaction's bulk payloads aside at the replica.
pub fn stage(from: &Ve, to: &Ve, txn: &FeedTxn) {
    for record in &txn.records {
        if let Some(FeedPayload::Bulk(id, len)) = &record.payload {
            let (bytes, within) = (from.payload(*id, 0, *len as usize).unwrap(), from.in_body(*id).unwrap());
            to.stage(*id, &bytes, within).unwrap();
        }
    }
}

/// Hands one transaction over, its bulk payloads first.
pub fn ship(from: &Ve, to: &Ve, txn: &FeedTxn) -> Result<(), ReceiveError> {
    stage(from, to, txn);
    to.receive(txn)
}
