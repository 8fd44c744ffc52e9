//! Templates: every kind of source into a store and out again, hostile ones refused with nothing changed, collections in the middle of
//! an import.

#![allow(clippy::unwrap_used)]

mod bed;
mod collect;
mod fixture;
mod hostile;
mod images;
mod labels;
mod sources;
mod stream;
