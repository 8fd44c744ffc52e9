//! Changing requests: asked for first, carried out, answered, each at once or when it may be (promises G14 to G16).
//!
//! Invariants
//! - What may begin at once is carried out where it was read, from the reader's own buffer.
//! - What an earlier daemon carried out is not asked for again; its answer is, like every answer that tells of a change.
//! - A mount that refuses every change asks nobody.

use std::sync::Arc;

use super::asker::Asker;
use super::fs::Fs;
use super::parked::{Act, Admission, NoPlace, Turn};
use super::reply::Answer;
use crate::errno::Errno;

/// Carries a changing request out, now or later, and answers it. `bytes`: what of the request lies in the reader's buffer; `run` gets it, or a
/// copy.
pub fn change<T: Send + 'static>(
    fs: &Arc<Fs>,
    asker: Asker,
    bytes: [&[u8]; 2],
    reply: impl Answer<T>,
    run: impl FnOnce(&Fs, Asker, [&[u8]; 2]) -> Result<T, Errno> + Send + 'static,
) {
    if fs.read_only {
        let _serving = fs.serving();
        return reply.give(Err(Errno::EROFS));
    }
    let len = bytes.iter().map(|b| b.len() as u64).sum();
    loop {
        let serving = fs.serving();
        let due = match fs.admission(asker, len) {
            Admission::Go => {
                let done = run(fs, asker, bytes);
                return answer(fs, asker, reply, done);
            }
            Admission::Refuse(error) => return reply.give(Err(error)),
            Admission::Park(due) => due,
        };
        match fs.parked.place(len) {
            Ok(place) => {
                let (fs, [one, two]) = (fs.clone(), bytes.map(<[u8]>::to_vec));
                let act: Act = Box::new(move |turn| match turn {
                    Turn::Go => {
                        let done = run(&fs, asker, [&one, &two]);
                        answer(&fs, asker, reply, done);
                    }
                    Turn::Refuse(error) => reply.give(Err(error)),
                    Turn::Leave => std::mem::forget(reply),
                });
                return place.park(asker, due, act);
            }
            Err(NoPlace::Ended(Turn::Refuse(error))) => return reply.give(Err(error)),
            // fuser answers what is dropped.
            Err(NoPlace::Ended(_)) => return std::mem::forget(reply),
            Err(NoPlace::Full) => {
                serving.interrupt();
                crate::waiting::wait(|| fs.parked.wait_for_room(len));
            }
        }
    }
}

/// Answers, as soon as what was changed may be told. What failed changed nothing.
fn answer<T: Send + 'static>(fs: &Arc<Fs>, asker: Asker, reply: impl Answer<T>, done: Result<T, Errno>) {
    match fs.parked.completion() {
        None if done.is_ok() => {
            let act: Act = Box::new(move |turn| match turn {
                Turn::Go => reply.give(done),
                Turn::Refuse(error) => reply.give(Err(error)),
                Turn::Leave => std::mem::forget(reply),
            });
            fs.parked.park_answer(asker, act);
        }
        Some(Turn::Refuse(error)) if done.is_ok() => reply.give(Err(error)),
        _ => reply.give(done),
    }
}

impl Fs {
    fn admission(&self, asker: Asker, len: u64) -> Admission {
        let done = asker.again() && self.ve.answered(self.number(asker)).is_some();
        if done { Admission::Go } else { self.parked.admission(len) }
    }
}
