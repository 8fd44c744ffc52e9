//! Templates: every kind of source into a store and out again, hostile ones refused with nothing changed, collections in the middle of
//! an import.

#![allow(clippy::unwrap_used)]

mod bed;
mod sources;
