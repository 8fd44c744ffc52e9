//! Answering: one question, as many answers as it takes, made one at a time when the link has room for it.

use vefs::ids::{Hash, PayloadId};

use super::{Answer, Ask, BYTES_MAX, OBJECTS_MAX, PAGE_TARGET, Part, Refused, Rows, Source, Stretch};
use crate::node::NodeId;

/// A stretch of more bytes is not compared. Values are long, and former ones count: more than the asker's target.
const STRETCH_MAX: usize = 256 << 10;

/// The answers to a question. What is to be sent next is made by [`Serving::next`].
#[derive(Clone, Debug)]
pub struct Serving {
    peer: NodeId,
    ask: Ask,
    /// Objects that were sent whole.
    done: usize,
    /// Bytes that were sent: of the tree, of the present object, of all ranges.
    at: u64,
    over: bool,
}

impl Serving {
    /// `peer` asks.
    pub fn new(peer: NodeId, ask: Ask) -> Serving {
        let at = match &ask {
            Ask::Tree { offset, .. } | Ask::Objects { offset, .. } => *offset,
            _ => 0,
        };
        Serving { peer, ask, done: 0, at, over: false }
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
        let Serving { ask, over, at, done, .. } = self;
        match ask {
            Ask::Tree { hash, .. } => bytes(at, over, source.tree(*hash, *at, BYTES_MAX)?),
            Ask::Objects { wanted, .. } => {
                let parts = objects(done, at, wanted, source)?;
                *over = *done == wanted.len();
                Ok(Answer::Parts(parts))
            }
            Ask::Snapshot { ve, lineage, have, epoch } => {
                *over = true;
                let (manifest, writing) = source.snapshot(peer, *ve, *lineage, *have, *epoch)?;
                Ok(Answer::Snapshot { manifest, epoch: writing })
            }
            Ask::Rows { ve, at, after, upto, epoch } => {
                *over = true;
                let mut max = PAGE_TARGET;
                let of = Rows { ve: *ve, at: *at, after: after.as_deref(), upto: upto.as_deref(), epoch: *epoch };
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
            Ask::Compare { ve, at, after, stretches, epoch } => {
                *over = true;
                let (mut same, mut after) = (Vec::new(), after.as_deref());
                for Stretch { upto, digest } in stretches {
                    let of = Rows { ve: *ve, at: *at, after, upto: Some(upto), epoch: *epoch };
                    let page = source.rows(peer, &of, STRETCH_MAX)?;
                    // One that is much longer here is another one.
                    same.push(page.last && page.digest() == *digest);
                    after = Some(upto);
                }
                Ok(Answer::Same(same))
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

/// As many bytes of objects as an answer may have.
fn objects(done: &mut usize, at: &mut u64, wanted: &[Hash], source: &mut dyn Source) -> Result<Vec<Part>, Refused> {
    let (mut parts, mut room) = (Vec::new(), BYTES_MAX);
    while let Some(hash) = wanted.get(*done).filter(|_| room > 0 && parts.len() < OBJECTS_MAX) {
        let (total, bytes) = match source.object(*hash, *at, room) {
            // What there is goes first: this one is met again.
            Err(_) if !parts.is_empty() => break,
            got => got?,
        };
        let offset = *at;
        if offset > total || (bytes.is_empty() && offset < total) {
            return Err(Refused::Malformed);
        }
        room = room.saturating_sub(bytes.len());
        *at += bytes.len() as u64;
        if *at >= total {
            (*done, *at) = (*done + 1, 0);
        }
        parts.push(Part { total, offset, bytes });
    }
    Ok(parts)
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
