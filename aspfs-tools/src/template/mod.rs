//! Templates on their way in. Two halves that need not be in one process: [`source`] reads a directory, a tar archive or an OCI image and
//! tells of it in a bounded stream of [`event::Event`]s; [`sink`] takes the stream, which it does not trust, and builds a base tree.
//!
//! The half that reads may wait for whatever the source lies on, a VE's own mount for one. The half that holds the store never
//! touches the source.

pub mod event;
pub mod sink;
pub mod source;
mod space;
