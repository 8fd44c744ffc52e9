//! What a thread of the pool does with a mount's parked requests when it has its turn.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::asker::Asker;
use super::room::REQUEST;
use super::{DELAY_MIN, Parked, Turn, Waiting};
use crate::errno::Errno;
use crate::ve::Verdict;

/// How often the watcher is asked again, and callers are looked after, while something waits.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The mount is being stopped or started.
const GATE_AGAIN: Duration = Duration::from_millis(5);
/// Operations carried out before another mount has its turn.
const TURN: usize = 64;
/// Callers looked after at a time.
const SWEEP: usize = 256;

/// When there is something to do again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing is parked.
    Idle,
    /// At this moment, or when somebody wakes.
    At(Instant),
    /// At once, after the others.
    Again,
}

impl Parked {
    /// Does what can be done now.
    pub(super) fn carry(&self, now: Instant) -> Next {
        for _ in 0..TURN {
            if let Some(next) = self.step(now) {
                if matches!(next, Next::At(_)) {
                    self.look_after_callers(now);
                }
                return next;
            }
        }
        Next::Again
    }

    /// One operation, and the answers. `Some` when nothing more can be done now.
    fn step(&self, now: Instant) -> Option<Next> {
        let head = {
            let s = self.state.lock();
            if s.begins.is_empty() && s.answers.is_empty() {
                return Some(Next::Idle);
            }
            s.begins.front().map(|w| (w.bytes, w.due))
        };
        let completion = self.completion();
        match completion {
            Some(Turn::Go) => self.give_answers(),
            Some(Turn::Refuse(error)) => {
                self.turn_away(error);
                return None;
            }
            _ => {}
        }
        let again = now + ASK_AGAIN;
        let Some((bytes, due)) = head else {
            return completion.is_none().then_some(Next::At(again));
        };
        let verdict = match due {
            Some(due) if due > now => return self.blocked_until(due.min(again)),
            Some(_) if completion.is_none() => Verdict::Wait,
            Some(_) => Verdict::Go,
            None => self.judge.admit(bytes - REQUEST),
        };
        match verdict {
            Verdict::Delay(delay) if delay >= DELAY_MIN => {
                let due = now + delay;
                if let Some(first) = self.state.lock().begins.front_mut() {
                    first.due = Some(due);
                }
                self.blocked_until(due.min(again))
            }
            Verdict::Go | Verdict::Delay(_) => self.begin_first(now),
            Verdict::Wait => self.blocked_until(again),
            Verdict::Fenced => {
                self.turn_away(Errno::EROFS);
                None
            }
        }
    }

    /// The first one waits: whoever comes queues behind it.
    fn blocked_until(&self, at: Instant) -> Option<Next> {
        let s = self.state.lock();
        self.blocked.store(!s.begins.is_empty(), Ordering::Relaxed);
        Some(Next::At(at))
    }

    fn begin_first(&self, now: Instant) -> Option<Next> {
        let Some(_open) = self.gate.try_read() else {
            return Some(Next::At(now + GATE_AGAIN));
        };
        let mut s = self.state.lock();
        self.blocked.store(false, Ordering::Relaxed);
        let Waiting { bytes, act, .. } = s.begins.pop_front()?;
        drop(s);
        act(Turn::Go);
        self.give_back(bytes);
        None
    }

    fn give_answers(&self) {
        let answers = std::mem::take(&mut self.state.lock().answers);
        answers.into_iter().for_each(|w| (w.act)(Turn::Go));
    }

    /// Whoever waits for a killed program cannot end it before that has its answer; and where all readers wait for room, nobody else
    /// notices that the mount is gone.
    fn look_after_callers(&self, now: Instant) {
        let mut s = self.state.lock();
        if s.swept_at.is_some_and(|at| now.saturating_duration_since(at) < ASK_AGAIN) {
            return;
        }
        s.swept_at = Some(now);
        let all = s.begins.len() + s.answers.len();
        let from = if s.swept < all { s.swept } else { 0 };
        s.swept = from + SWEEP;
        let callers: Vec<Asker> =
            s.begins.iter().chain(&s.answers).skip(from).take(SWEEP).map(|w| w.asker).filter(|a| a.pid != 0).collect();
        let outside = s.outside > 0;
        drop(s);
        if outside && self.is_dead() {
            return self.close();
        }
        let killed: Vec<Asker> = callers.into_iter().filter(|asker| (self.killed)(*asker)).collect();
        if !killed.is_empty() {
            self.release(&killed);
        }
    }

    /// Answers the requests of programs that will never see it: with what they came to, or EINTR.
    fn release(&self, killed: &[Asker]) {
        let theirs = |w: &Waiting| killed.contains(&w.asker);
        let mut s = self.state.lock();
        let (gone, stay): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut s.begins).into_iter().partition(theirs);
        let (done, wait): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut s.answers).into_iter().partition(theirs);
        s.room.give_back(gone.iter().map(|w| w.bytes).sum());
        self.blocked.store(!stay.is_empty(), Ordering::Relaxed);
        (s.begins, s.answers) = (stay, wait);
        drop(s);
        self.freed.notify_all();
        gone.into_iter().for_each(|w| (w.act)(Turn::Refuse(Errno::EINTR)));
        done.into_iter().for_each(|w| (w.act)(Turn::Go));
    }

    /// Whether the kernel has given the mount up.
    fn is_dead(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let Some(device) = &self.device else { return false };
        let mut fds = [PollFd::from_borrowed_fd(device.as_fd(), PollFlags::empty())];
        let asked = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        asked.is_ok() && fds.iter().any(|fd| fd.revents().intersects(PollFlags::ERR | PollFlags::HUP))
    }
}
