//! The state of one VE: logical keys and values, in layers, and the one `apply` that changes it.
//!
//! Layers, newest first: the *active* overlay (what records changed since the last publish), a *frozen* overlay (being
//! published), the metadata store, the base tree. An upper layer's answer hides the lower ones', also when it is "gone".

pub mod apply;
pub mod check;
pub mod key;
mod layers;
pub mod maps;
mod neighbours;
pub mod overlay;
pub mod publish;
pub mod root;
pub mod tables;
pub mod version;
pub mod view;
