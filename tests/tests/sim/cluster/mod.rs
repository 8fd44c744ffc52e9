//! Several nodes in memory.

mod content;
mod incoming;
mod pull;
mod store;
