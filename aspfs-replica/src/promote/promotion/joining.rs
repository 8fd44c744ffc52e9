//! A majority of the required replicas joins the epoch, or a higher one is tried.

use std::time::Duration;

use super::{AGAIN, Action, GROUNDS, Grounds, Promotion, Refused, TRIES_MAX};
use crate::member::{No, Part, Question, Reply, Standing};
use crate::node::NodeId;
use crate::promote::{is_later, next_epoch};

impl Promotion {
    /// Asks all lessors that have not joined yet; this node itself when it makes the majority. An epoch that it joined and does not get would keep it from
    /// the one who gets his.
    pub(super) fn ask_to_join(&mut self, now: Duration) -> Vec<Action> {
        let (epoch, me, mut out) = (self.epoch, self.me, vec![]);
        let joined = self.lessors.iter().filter(|n| self.members.get(n).is_some_and(|m| m.joined)).count();
        let last = (joined + 1) * 2 > self.lessors.len();
        for node in self.lessors.iter().filter(|n| **n != me || last) {
            let member = self.members.entry(*node).or_default();
            let due = member.asked.is_none_or(|at| now >= at + AGAIN) && now >= member.not_before;
            if !member.joined && due {
                member.asked = Some(now);
                out.push(match *node == me {
                    true => Action::JoinHere(epoch),
                    false => Action::Ask(*node, Question::Join(epoch)),
                });
            }
        }
        out
    }

    pub(super) fn joined(&mut self, node: NodeId, reply: Reply, now: Duration) -> Option<Vec<Action>> {
        if !self.lessors.contains(&node) {
            return None;
        }
        let epoch = self.epoch;
        let member = self.members.entry(node).or_default();
        match reply {
            // What this node had received before it joined is part of its history; nothing of the former epoch comes behind it.
            Reply::Joined(position, lagging) if node == self.me => {
                member.joined = true;
                (self.mine.position, self.mine.lagging) = (position, lagging);
                None
            }
            Reply::Joined(position, lagging) => {
                member.joined = true;
                let unknown = Standing { part: Part::Replica, position, epoch, successor: None, lagging };
                let standing = member.standing.get_or_insert(unknown);
                (standing.position, standing.lagging) = (position, lagging);
                None
            }
            Reply::No(No::NotYet(ms)) => {
                (member.not_before, member.asked) = (now + Duration::from_millis(ms.max(1)), None);
                None
            }
            Reply::No(No::Epoch(higher)) if higher >= epoch => {
                self.tries += 1;
                if self.tries > TRIES_MAX {
                    return Some(self.refuse(Refused::Epochs));
                }
                // Everybody is asked anew: whoever joined in the lower epoch joins in this one too.
                self.epoch = next_epoch(higher, self.me);
                self.members.values_mut().for_each(|m| (m.joined, m.asked) = (false, None));
                Some(if self.grounds == Grounds::Arbiter { self.propose() } else { self.ask_to_join(now) })
            }
            _ => None,
        }
    }

    /// Waits for a majority of the lessors.
    pub(super) fn join(&mut self, began: Duration, now: Duration) -> Vec<Action> {
        let is_in = |n: &&NodeId| self.members.get(n).is_some_and(|m| m.joined);
        let joined: Vec<NodeId> = self.lessors.iter().filter(is_in).copied().collect();
        if joined.len() * 2 > self.lessors.len() {
            let heads = joined.iter().filter(|n| **n != self.me).filter_map(|n| Some((*n, self.members[n].standing?)));
            let later = heads.into_iter().find(|(_, s)| is_later(&s.position, &self.mine.position));
            return match later {
                Some((node, s)) if !self.forced => self.refuse(Refused::Later(node, s.position)),
                // Recorded after it had been asked for, and before a lessor joined: nothing is after it.
                _ if self.lags() => self.refuse(Refused::Lags(self.lost())),
                _ => self.verify(),
            };
        }
        if now >= began + GROUNDS {
            return self.refuse(Refused::NoMajority);
        }
        self.ask_to_join(now)
    }
}
