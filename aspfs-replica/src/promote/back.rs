//! A node that comes back, or that is told of another primary: does its history go on there, or did it go another way (promises G22, G23)?

use vefs::ids::Position;

use crate::member::Reply;

/// What becomes of the history here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Back {
    /// It is a part of the primary's: follow.
    Follow,
    /// A whole state is to be pulled; with a name, the present one is kept as a branch of this name.
    Pull(Option<String>),
    /// Not known: ask again.
    Ask,
}

/// The name of the branch that ends at a position.
pub fn branch_name(head: &Position) -> String {
    format!("epoch-{}.{}-txn-{}", head.epoch.term(), head.epoch.0 & 0xffff_ffff, head.txn)
}

/// What to do, given the durable head here and what the primary replied to [`Question::At`](crate::member::Question::At) with this head's transaction.
///
/// Where the primary no longer knows: a head that was written in the epoch that was forked from, and not behind the fork, is
/// a part of its history, since an epoch has one writer. Of any other head nobody can say, so it is kept.
pub fn decide(own: &Position, reply: &Reply) -> Back {
    match reply {
        Reply::At { position: Some(theirs), .. } if theirs == own => Back::Follow,
        Reply::At { .. } if own.txn.0 == 0 => Back::Follow,
        Reply::At { position: None, beyond: false, fork } => {
            let before = own.lineage == fork.lineage && own.epoch == fork.epoch && own.txn <= fork.txn;
            Back::Pull((!before).then(|| branch_name(own)))
        }
        Reply::At { .. } => Back::Pull(Some(branch_name(own))),
        _ => Back::Ask,
    }
}
