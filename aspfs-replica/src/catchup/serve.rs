//! Answering: one question, as many answers as it takes, made one at a time when the link has room for it.

use vefs::ids::PayloadId;

use super::{Answer, Ask, BYTES_MAX, PAGE_TARGET, Refused, Rows, Source};
use crate::node::NodeId;

/// The answers to a question. What is to be sent next is made by [`Serving::next`].
#[derive(Clone, Debug)]
pub struct Serving {
    peer: NodeId,
    ask: Ask,
    at: u64,
    over: bool,
}

impl Serving {
    /// `peer` asks.
    pub fn new(peer: NodeId, ask: Ask) -> Serving {
        let at = match &ask {
            Ask::Tree { offset, .. } | Ask::Object { offset, .. } => *offset,
            _ => 0,
        };
        Serving { peer, ask, at, over: false }
    }

    /// The question in these bytes. What is none is answered as such.
    #[allow(clippy::result_large_err, reason = "the answer is sent at once; nothing keeps it")]
    pub fn of(peer: NodeId, blob: &[u8]) -> Result<Serving, Answer> {
        Ask::decode(blob).map(|ask| Serving::new(peer, ask)).map_err(|_| Answer::Refused(Refused::Malformed))
    }

    /// What it answers.
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// The next answer; `None` when all has been said.
    pub fn next(&mut self, source: &mut dyn Source) -> Option<Answer> {
        if self.over {
            return None;
        }
        Some(self.answer(source).unwrap_or_else(|why| {
            self.over = true;
            Answer::Refused(why)
        }))
    }

    fn answer(&mut self, source: &mut dyn Source) -> Result<Answer, Refused> {
        let peer = self.peer;
        let Serving { ask, over, at, .. } = self;
        match ask {
            Ask::Tree { hash, .. } => bytes(at, over, source.tree(*hash, *at, BYTES_MAX)?),
            Ask::Object { hash, .. } => bytes(at, over, source.object(*hash, *at, BYTES_MAX)?),
            Ask::Snapshot { ve, lineage, have, epoch } => {
                *over = true;
                let (manifest, writing) = source.snapshot(peer, *ve, *lineage, *have, *epoch)?;
                Ok(Answer::Snapshot { manifest, epoch: writing })
            }
            Ask::Rows { ve, at, after, epoch } => {
                *over = true;
                let mut max = PAGE_TARGET;
                let of = Rows { ve: *ve, at: *at, after: after.as_deref(), epoch: *epoch };
                loop {
                    let page = source.rows(peer, &of, max)?;
                    if page.fits() {
                        return Ok(Answer::Rows(page));
                    }
                    // Rows that name much content make a page too large; a single one never does.
                    if page.rows.len() <= 1 {
                        return Err(Refused::Store);
                    }
                    max /= 2;
                }
            }
            Ask::Payloads { ve, at: state, wanted } => {
                let total = wanted.iter().map(|(_, len)| len).sum();
                let (offset, mut bytes) = (*at, Vec::new());
                for (id, len) in ranges_at(wanted, offset) {
                    if !bytes.is_empty() && bytes.len() as u64 + len > BYTES_MAX as u64 {
                        break;
                    }
                    let part = source.payload(peer, *ve, *state, id, len)?;
                    if part.len() as u64 != len {
                        return Err(Refused::Store);
                    }
                    bytes.extend_from_slice(&part);
                }
                *at += bytes.len() as u64;
                *over = *at >= total;
                Ok(Answer::Bytes { total, offset, bytes })
            }
            Ask::Done { ve, at } => {
                *over = true;
                source.done(peer, *ve, *at).map(|()| Answer::Released)
            }
        }
    }
}

fn bytes(at: &mut u64, over: &mut bool, (total, bytes): (u64, Vec<u8>)) -> Result<Answer, Refused> {
    let offset = *at;
    if offset > total || (bytes.is_empty() && offset < total) {
        return Err(Refused::Malformed);
    }
    *at += bytes.len() as u64;
    *over = *at >= total;
    Ok(Answer::Bytes { total, offset, bytes })
}

/// The ranges that begin at an offset in all of them together, or behind it.
fn ranges_at(wanted: &[(PayloadId, u64)], at: u64) -> impl Iterator<Item = (PayloadId, u64)> {
    let mut end = 0;
    wanted.iter().copied().skip_while(move |(_, len)| {
        let begin = end;
        end += len;
        begin < at
    })
}
