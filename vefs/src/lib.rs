//! `vefs`: the file system of one virtual environment (VE) on one machine.
//!
//! One flow, no way back:
//!
//! ```text
//! Op → plan against a View → Change → Record → Journal → apply → (publish) metadata store
//! ```
//!
//! Ground state is the journal and the bytes it names (extent files, objects); everything else (the metadata store,
//! the in-memory overlay, usage figures) is derived and can be rebuilt. Nothing here opens a socket.
//! `ARCHITECTURE.md` at the top of the repository tells the life of one mkdir and one write.

pub mod base;
pub mod change;
pub mod clock;
pub mod codec;
pub mod content;
pub mod diff;
pub mod entropy;
pub mod errno;
pub mod error;
pub mod format;
pub mod fuse;
pub mod ids;
pub mod journal;
pub mod limits;
pub(crate) mod lock;
pub mod meta;
pub mod object;
pub mod op;
pub mod plan;
pub mod state;
pub mod storage;
pub mod store;
pub mod types;
pub mod ve;
pub(crate) mod waiting;

pub use error::{Error, Result};
pub use store::{Options, Store};
pub use ve::Ve;
