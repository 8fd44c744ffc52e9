//! The control socket: how a client asks the daemon for something. The words are in [`message`], the bytes in [`frame`], a connection is
//! a [`conn::Conn`].
//!
//! A conversation: each side says [`Hello`](message::Hello), the client sends one [`Request`](message::Request) (and, for an import, data),
//! the daemon sends progress, rows and data as they come, and last an answer or a refusal. Whoever goes away ends it; the daemon then stops what
//! it was doing for that client.
//!
//! Only root and the daemon's own user are listened to (promise G30): the socket's mode keeps others out, and the kernel's word on
//! who connected ([`peer_is_allowed`]) is asked besides.

pub mod conn;
pub mod diff;
pub mod frame;
pub mod message;
pub mod path;
pub mod replication;
pub mod scrub;
pub mod status;
pub mod versions;

pub use aspfs_holder::peer_is_allowed;

/// Where the daemon listens when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/aspfs/control.sock";

/// What the fuzz target `control` runs: bytes as a stream of frames. What is accepted comes out again as it went in.
pub fn hostile(data: &[u8]) {
    use message::{Hello, Refusal, Request};
    fn there_and_back<T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(body: &[u8]) {
        if let Ok(value) = serde_json::from_slice::<T>(body) {
            let again = serde_json::to_vec(&value).map(|text| serde_json::from_slice::<T>(&text).ok());
            assert_eq!(again.ok().flatten().as_ref(), Some(&value));
        }
    }
    let mut rest = data;
    while let Some((head, body)) = rest.split_first_chunk() {
        let Ok((kind, len)) = frame::parse_header(*head) else { return };
        assert_eq!(frame::header(kind, len).as_ref(), Ok(head));
        let Some((body, next)) = body.split_at_checked(len) else { return };
        match kind {
            frame::Kind::Request => there_and_back::<Request>(body),
            frame::Kind::Hello => there_and_back::<Hello>(body),
            frame::Kind::Refusal => there_and_back::<Refusal>(body),
            _ => {}
        }
        rest = next;
    }
}
