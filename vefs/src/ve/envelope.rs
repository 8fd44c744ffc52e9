//! The local envelope of a record: what only this node needs. Never chained, never shipped.

use bincode::{Decode, Encode};

use crate::content::ExtentPlace;
use crate::ids::InodeNo;
use crate::op::Reply;

/// What lies beside a body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Envelope {
    /// The number of the request, told from those of other mounts; 0 for none.
    pub unique: u64,
    /// What it was answered, when there was a request.
    pub memo: Option<Memo>,
    /// Where the payload lies when it is not inline.
    pub place: Option<ExtentPlace>,
}

/// An answer, small enough to be kept with each record. Attributes are read from the state when it is given again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Memo {
    /// An inode.
    Inode(InodeNo),
    /// Bytes written.
    Written(u64),
    /// Success.
    Done,
}

impl From<&Reply> for Memo {
    fn from(r: &Reply) -> Memo {
        match r {
            Reply::Inode(ino, _) => Memo::Inode(*ino),
            Reply::Written(n) => Memo::Written(*n),
            Reply::Done => Memo::Done,
        }
    }
}
