//! What breaks, and what people do about it. People lie about nothing: what they state is true when they state it, and they see to it that it
//! stays true until what follows from it is done.

use std::time::Duration;

use aspfs_replica::promote::{Grounds, next_epoch};
use vefs::format::role::RoleKind;
use vefs::ids::Epoch;

use super::net::{Weather, What};
use super::seat::{Mode, Run, id, index};
use super::world::World;

impl World {
    pub fn outside(&mut self, what: What) {
        match what {
            What::Chaos => {
                if self.chaos {
                    self.break_something();
                }
                let wait = Duration::from_millis(500 + self.random.below(6000));
                self.net.after(wait, What::Chaos);
            }
            What::Operator(ve) => {
                self.operate(ve);
                let wait = Duration::from_millis(1500 + self.random.below(3000));
                self.net.after(wait, What::Operator(ve));
            }
            What::Start(n) => {
                self.start(n);
                if !self.nodes[n].up {
                    self.net.after(Duration::from_secs(2), What::Start(n));
                }
            }
            _ => {}
        }
    }

    fn break_something(&mut self) {
        let count = self.nodes.len() as u64;
        let (n, m) = (self.random.below(count) as usize, self.random.below(count + 1) as usize);
        match self.random.below(12) {
            0 | 1 => {
                let power = self.random.one_in(2);
                self.kill(n, power);
                let wait = Duration::from_millis([300, 3000, 40_000][self.random.below(3) as usize]);
                let wait = wait + Duration::from_millis(self.random.below(3000));
                self.net.after(wait, What::Start(n));
            }
            2 => {
                let wait = [200, 2000, 20_000][self.random.below(3) as usize];
                self.nodes[n].stopped = self.net.now + Duration::from_millis(self.random.below(wait));
            }
            3 => drop(self.net.blocked.insert((n, m))),
            4 => {
                self.net.blocked.insert((n, m));
                self.net.blocked.insert((m, n));
            }
            5..=7 => self.net.blocked.clear(),
            8 => {
                let full = self.random.one_in(2);
                self.nodes[n].seats.values_mut().for_each(|s| s.store.full = full);
            }
            9 => {
                let up = self.random.one_in(2);
                self.restart_arbiter(up);
            }
            10 => {
                // Old journals are recycled.
                for seat in self.nodes[n].seats.values_mut() {
                    seat.store.recycled = seat.store.durable.saturating_sub(self.random.below(20) as usize);
                }
            }
            _ => self.change_weather(),
        }
    }

    fn change_weather(&mut self) {
        let bad = |r: &mut crate::random::Random, n| if r.one_in(3) { n } else { 0 };
        let r = &mut self.random;
        self.net.weather = Weather {
            loss: bad(r, 60),
            twice: bad(r, 40),
            flip: bad(r, 150),
            swap: bad(r, 80),
            delay: [300, 5000, 80_000, 400_000][r.below(4) as usize],
            rate: [8000, 100_000, 10_000_000, 100_000_000][r.below(4) as usize],
        };
    }

    /// Who has the role of the primary on disk, in the highest epoch.
    pub fn writer(&self, ve: usize) -> Option<usize> {
        let is = |n: &&usize| self.nodes[**n].seats[&ve].store.role.kind == RoleKind::Primary;
        let members = self.config.members[ve].iter().filter(is);
        members.copied().max_by_key(|n| self.nodes[*n].seats[&ve].store.role.epoch)
    }

    fn is_idle(&self, n: usize, ve: usize) -> bool {
        let node = &self.nodes[n];
        let replica = matches!(&node.seats[&ve].run, Run::Replica(r) if !r.is_busy());
        node.up && self.net.now >= node.stopped && replica
    }

    fn operate(&mut self, ve: usize) {
        self.let_go(ve);
        match self.writer(ve) {
            Some(n) if !self.nodes[n].up => self.fail_over(ve, n),
            Some(n) => {
                self.help_to_boot(ve, n);
                let others = self.config.members[ve].clone();
                let to = others[self.random.below(others.len() as u64) as usize];
                if self.random.one_in(6) && self.is_idle(to, ve) && self.chaos {
                    self.seat(n, ve, |ctx, seat| seat.hand_over(ctx, to));
                }
            }
            None => self.successor_is_lost(ve),
        }
    }

    /// Nodes that were kept off may start again, where no promotion runs.
    fn let_go(&mut self, ve: usize) {
        let members = &self.config.members[ve];
        let promotes = |n: &usize| matches!(&self.nodes[*n].seats[&ve].run, Run::Replica(r) if r.promotes());
        if !members.iter().any(|n| self.nodes[*n].up && promotes(n)) {
            for n in members.clone() {
                self.nodes[n].held = false;
            }
        }
    }

    fn fail_over(&mut self, ve: usize, old: usize) {
        if self.config.mode != Mode::Statement || self.net.now < self.nodes[old].off_since + Duration::from_secs(4) {
            return;
        }
        self.state_off(ve, old);
    }

    /// A person says that a node is off, and has another one promoted.
    fn state_off(&mut self, ve: usize, old: usize) {
        let promotes = |n: &usize| matches!(&self.nodes[*n].seats[&ve].run, Run::Replica(r) if r.promotes());
        if self.config.members[ve].iter().any(|n| self.nodes[*n].up && promotes(n)) {
            return;
        }
        let able: Vec<usize> =
            self.config.members[ve].iter().copied().filter(|n| *n != old && self.is_idle(*n, ve)).collect();
        let Some(first) = able.get(self.random.below(able.len() as u64) as usize).copied() else { return };
        let hint = able.iter().find_map(|n| self.nodes[*n].seats[&ve].hint()).filter(|n| able.contains(n));
        let chosen = hint.filter(|_| self.random.one_in(2)).unwrap_or(first);
        // The person's records say which epochs there were.
        let epochs = self.config.members[ve].iter().map(|n| {
            let role = self.nodes[*n].seats[&ve].store.role;
            role.successor.map_or(role.epoch, |to| next_epoch(role.epoch, to))
        });
        let above = epochs.fold(Epoch(0), Epoch::max);
        self.nodes[old].held = true;
        let grounds = Grounds::Statement { old: id(old), above };
        self.seat(chosen, ve, |ctx, seat| seat.promote(ctx, grounds, false));
    }

    /// A primary that waits for a replica which is off: nobody else was promoted, and a person can see that.
    fn help_to_boot(&mut self, ve: usize, n: usize) {
        if self.config.mode == Mode::Statement && self.random.one_in(4) {
            let epoch = self.nodes[n].seats[&ve].store.role.epoch;
            let others = self.config.members[ve].iter().map(|m| self.nodes[*m].seats[&ve].store.role.epoch);
            let promotes = self.config.members[ve]
                .iter()
                .any(|m| matches!(&self.nodes[*m].seats[&ve].run, Run::Replica(r) if r.promotes()));
            if others.into_iter().all(|e| e <= epoch) && !promotes {
                self.seat(n, ve, |ctx, seat| seat.stated(ctx));
            }
        }
    }

    /// The VE was handed to a node that is gone.
    fn successor_is_lost(&mut self, ve: usize) {
        let named = self.config.members[ve].iter().find_map(|n| self.nodes[*n].seats[&ve].store.role.successor);
        if let Some(to) = named.map(index).filter(|_| self.config.mode == Mode::Statement)
            && !self.nodes[to].up
            && self.net.now > self.nodes[to].off_since + Duration::from_secs(10)
        {
            self.state_off(ve, to);
        }
    }
}
