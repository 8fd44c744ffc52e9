//! A replica's shell: its stream, whole states, promotion, and the way back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use aspfs_replica::apply::{Action, Receiver};
use aspfs_replica::arbiter;
use aspfs_replica::catchup::{Action as PullAction, Answer, GiveUp, Puller};
use aspfs_replica::member::{Part, Question, Reply};
use aspfs_replica::promote::back::{Back, decide};
use aspfs_replica::promote::{Action as PromoteAction, Candidate, Event, Grounds, Promotion, Refused, Switchover, Who};
use aspfs_replica::session::Closed;
use aspfs_replica::wire::{self, Envelope, Message, Refusal};
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Position};

use super::net::What;
use super::seat::{Ctx, Mode, Purpose, Run, Seat, id, index, nodes_of, ve_id};
use super::store::Store;

#[derive(Debug)]
struct Pull {
    from: usize,
    puller: Puller,
    /// What the present state is to be called, and where it ended.
    old: (Option<String>, Position),
}

#[derive(Debug)]
struct Running {
    machine: Promotion,
    grounds: Grounds,
    forced: bool,
}

#[derive(Debug)]
pub struct Replica {
    receiver: Receiver,
    /// Who greeted in which session.
    sessions: BTreeMap<u64, usize>,
    heard: Duration,
    /// How long silence is borne before this node wants to be the primary.
    patience: Duration,
    flushing: bool,
    /// It acknowledged the primary's history in this run.
    pub present: bool,
    /// The history may not be the primary's: whom to ask, and when that was done last.
    back: Option<(usize, Duration)>,
    pull: Option<Pull>,
    promotion: Option<Running>,
    /// The last refusal of a promotion.
    pub refused: Option<Refused>,
    /// A switchover that goes on.
    pub resume: Option<Switchover>,
    /// It was asked to take over, and has to find out whether it may.
    pub claim: bool,
}

impl Replica {
    pub fn new(ctx: &mut Ctx<'_>) -> Replica {
        Replica {
            receiver: Receiver::new(ctx.id(), ve_id(ctx.ve)),
            sessions: BTreeMap::new(),
            heard: ctx.clock,
            patience: Duration::from_millis(6000 + ctx.random.below(8000)),
            flushing: false,
            present: false,
            back: None,
            pull: None,
            promotion: None,
            refused: None,
            resume: None,
            claim: false,
        }
    }

    /// A VE that was not written here when the node started.
    pub fn starting(store: &Store, ctx: &mut Ctx<'_>) -> Replica {
        let mut replica = Replica::new(ctx);
        if let Some(to) = store.role.successor.filter(|_| store.role.kind == RoleKind::Replica) {
            let outside = ctx.config.mode == Mode::Arbiter;
            let (epoch, lineage) = (store.role.epoch, store.lineage());
            let who = Who { ve: ve_id(ctx.ve), lineage, me: ctx.id(), to, epoch, outside };
            let lessors = nodes_of(store.state.required());
            replica.resume = Some(Switchover::resume(who, store.durable_head(), lessors));
        }
        replica
    }

    pub fn describe(&self) -> String {
        format!("{self:?}")
    }

    pub fn is_busy(&self) -> bool {
        self.pull.is_some() || self.back.is_some() || self.promotion.is_some()
    }

    pub fn promotes(&self) -> bool {
        self.promotion.is_some()
    }

    /// The epoch that others are asked to join.
    pub fn claims(&self) -> Option<Epoch> {
        self.promotion.as_ref().and_then(|p| p.machine.epoch())
    }

    /// Another one's epoch was joined here.
    pub fn give_way(&mut self) {
        if !self.is_sure() {
            self.promotion = None;
        }
    }

    /// It is to be the primary since the former one does not run.
    pub fn is_sure(&self) -> bool {
        self.promotion.as_ref().is_some_and(|p| matches!(p.grounds, Grounds::Statement { .. }))
    }
}

impl Seat {
    /// A frame for whoever is a replica, or was a primary.
    pub fn frame_for_replica(&mut self, ctx: &mut Ctx<'_>, from: usize, bytes: &[u8]) {
        let Ok((envelope, message, _)) = wire::decode(bytes) else {
            if let Run::Replica(r) = &mut self.run {
                r.receiver.disconnected();
            }
            return;
        };
        let busy = matches!(&self.run, Run::Replica(r) if r.is_busy());
        if let Message::Hello(_) = &message
            && envelope.epoch > self.store.role.epoch
            && (busy || self.store.role.kind != RoleKind::Replica)
        {
            // Another primary: what was going on with the former one is over.
            self.superseded(ctx, envelope.epoch);
            if let Run::Replica(r) = &mut self.run {
                (r.pull, r.promotion, r.back) = (None, None, None);
            }
        }
        if let (Run::Replica(r), Message::Hello(_)) = (&mut self.run, &message)
            && self.store.trees.is_empty()
            && !r.is_busy()
            && envelope.epoch >= self.store.role.epoch
        {
            // Nothing is here yet.
            let own = self.store.durable_head();
            let puller = Puller::new(ve_id(ctx.ve), self.store.lineage(), own);
            r.pull = Some(Pull { from, puller, old: (None, own) });
        }
        match &mut self.run {
            Run::Primary(_) => self.turn_away(ctx, from, &envelope, &message),
            Run::Replica(r) if r.pull.is_some() || r.back.is_some() => {}
            Run::Replica(r) if self.store.role.kind == RoleKind::Superseded => {
                if envelope.epoch >= self.store.role.epoch {
                    r.back = Some((from, Duration::ZERO));
                } else {
                    // It takes part in an epoch that nobody writes in, maybe: the one who writes has to take a higher one.
                    self.turn_away(ctx, from, &envelope, &message);
                }
            }
            Run::Replica(_) => self.receive(ctx, from, &envelope, message),
        }
    }

    /// A node that writes, or has heard of a higher epoch, tells one that writes in a lower one.
    fn turn_away(&mut self, ctx: &mut Ctx<'_>, from: usize, envelope: &Envelope, message: &Message) {
        if let Message::Hello(_) = message {
            let epoch = self.store.writing.max(self.store.role.epoch);
            let answer = Envelope { epoch, seq: 0, ..*envelope };
            let refused = Message::Refused(Refusal::OldEpoch, self.store.head().txn);
            ctx.frame(from, wire::encode(&refused, answer, false));
        }
    }

    fn receive(&mut self, ctx: &mut Ctx<'_>, from: usize, envelope: &Envelope, message: Message) {
        let Run::Replica(r) = &mut self.run else { return };
        if let Message::Hello(_) = &message {
            r.sessions.insert(envelope.session, from);
        }
        let before = (self.store.history.txns.len(), self.store.role.epoch);
        let actions = r.receiver.receive(&mut self.store, envelope, message, ctx.clock);
        r.heard = ctx.clock;
        if self.store.role.epoch != before.1 {
            ctx.oracle.noted(ctx.ve, ctx.me, self.store.role.epoch);
            r.resume = None;
        }
        if self.store.history.txns.len() > before.0 {
            let root = ctx.random.one_in(4);
            ctx.oracle.received(ctx.ve, ctx.me, &self.store, envelope.epoch, root);
        }
        // There is a primary: a promotion that goes on would take other nodes into an epoch that nobody writes in.
        if let Run::Replica(r) = &mut self.run
            && envelope.epoch >= self.store.role.epoch
            && !r.is_sure()
        {
            r.promotion = None;
        }
        self.receiver_did(ctx, from, actions);
    }

    fn receiver_did(&mut self, ctx: &mut Ctx<'_>, from: usize, actions: Vec<Action>) {
        let Run::Replica(r) = &mut self.run else { return };
        for action in actions {
            match action {
                Action::Sync => {
                    r.flushing = true;
                    let wait = Duration::from_micros(300 + ctx.random.below(20_000));
                    ctx.net.after(wait, What::Flushed(ctx.me, ctx.ve, 0, ctx.run));
                }
                Action::Closed(Closed::TheyRefused(Refusal::Diverged | Refusal::TooOld, _)) => {
                    r.back = Some((from, Duration::ZERO));
                }
                Action::Closed(_) | Action::TurnedAway(..) => {}
            }
        }
        while let Some((envelope, message)) = r.receiver.poll(&self.store, ctx.clock) {
            if let Message::Ack(position) = message {
                r.present = true;
                ctx.oracle.ack_sent(ctx.ve, ctx.me, &self.store, position);
            }
            if let Message::Welcome(welcome) = &message {
                ctx.oracle.ack_sent(ctx.ve, ctx.me, &self.store, welcome.position);
            }
            let to = r.sessions.get(&envelope.session).copied().unwrap_or(from);
            ctx.frame(to, wire::encode(&message, envelope, false));
        }
    }

    /// A replica's flush ended.
    pub fn replica_flushed(&mut self, ctx: &mut Ctx<'_>) {
        use aspfs_replica::log::Follower;
        let Run::Replica(r) = &mut self.run else { return };
        if std::mem::take(&mut r.flushing) {
            let outcome = self.store.sync();
            let actions = r.receiver.synced(&self.store, outcome);
            self.receiver_did(ctx, ctx.me, actions);
        }
    }

    /// Time passed at a replica.
    pub fn tick_replica(&mut self, ctx: &mut Ctx<'_>) {
        let Run::Replica(r) = &mut self.run else { return };
        let actions = r.receiver.tick(ctx.clock);
        if self.store.role.successor.is_none() {
            r.resume = None;
        }
        self.receiver_did(ctx, ctx.me, actions);
        self.tick_resumed(ctx);
        self.go_back(ctx);
        self.pull_on(ctx);
        self.promote_by_itself(ctx);
        self.promotion(ctx, Event::Tick);
    }

    fn go_back(&mut self, ctx: &mut Ctx<'_>) {
        let Run::Replica(r) = &mut self.run else { return };
        let Some((from, asked)) = r.back else { return };
        if asked.is_zero() {
            // What is here is to be durable before it is compared.
            self.store.flush();
            r.back = Some((from, ctx.clock.max(Duration::from_nanos(1))));
            ctx.ask(id(from), Purpose::Back, Question::At(self.store.durable_head().txn));
        } else if ctx.clock > asked + Duration::from_secs(3) {
            r.back = None;
        }
    }

    fn came_back(&mut self, ctx: &mut Ctx<'_>, from: usize, reply: Reply) {
        let Run::Replica(r) = &mut self.run else { return };
        if r.back.is_none_or(|(n, _)| n != from) {
            return;
        }
        let own = self.store.durable_head();
        ctx.say(|| format!("comes back with {}@{:x}: {:?}", own.txn, own.epoch.0, decide(&own, &reply)));
        match decide(&own, &reply) {
            Back::Ask => r.back = None,
            Back::Follow => {
                r.back = None;
                self.store.role.kind = RoleKind::Replica;
            }
            Back::Pull(branch) => {
                r.back = None;
                self.store.branch.clone_from(&branch);
                let puller = Puller::new(ve_id(ctx.ve), self.store.lineage(), own);
                r.pull = Some(Pull { from, puller, old: (branch, own) });
                r.receiver.disconnected();
                self.pull_on(ctx);
            }
        }
    }

    fn pull_on(&mut self, ctx: &mut Ctx<'_>) {
        for _ in 0..200 {
            let Run::Replica(r) = &mut self.run else { return };
            let Some(pull) = &mut r.pull else { return };
            let (from, old) = (pull.from, pull.old.clone());
            match pull.puller.poll(&mut self.store, ctx.clock) {
                PullAction::Ask(number, ask) => return ctx.call(from, Purpose::Pull(number), ask.encode()),
                PullAction::Wait(_) => return,
                PullAction::Again => {}
                PullAction::Installed(at) => self.installed(ctx, at, &old),
                PullAction::Over => r.pull = None,
                PullAction::GiveUp(why) => {
                    r.pull = None;
                    ctx.say(|| format!("gives up to pull: {why}"));
                }
            }
        }
    }

    fn installed(&mut self, ctx: &mut Ctx<'_>, at: Position, (branch, own): &(Option<String>, Position)) {
        ctx.oracle.is_a_version(ctx.ve, ctx.me, &self.store);
        ctx.oracle.ves[ctx.ve].rewinds += 1;
        let part = ctx.oracle.is_part(ctx.ve, own, &at);
        if !part {
            ctx.oracle.ves[ctx.ve].branches += 1;
        }
        let kept = branch.as_ref().and_then(|b| self.store.branches.get(b));
        let end = kept.map(|h| h.txns.last().map_or(h.base, |t| t.position));
        let me = ctx.me;
        ctx.oracle.must(part || end == Some(*own), "G22", || {
            format!("node {me}: the tail up to {own:?} is lost, kept is {end:?}")
        });
        ctx.oracle.must(self.store.has_objects(), "G23", || format!("node {me}: an object of {at:?} is missing"));
        if let Run::Replica(r) = &mut self.run {
            r.receiver = Receiver::new(ctx.id(), ve_id(ctx.ve));
            r.flushing = false;
        }
    }

    pub fn pulled(&mut self, ctx: &mut Ctx<'_>, number: u64, blob: Option<&[u8]>) {
        let Run::Replica(r) = &mut self.run else { return };
        let Some(pull) = &mut r.pull else { return };
        match blob.map(Answer::decode) {
            Some(Ok(answer)) => {
                if let Some(PullAction::GiveUp(why)) = pull.puller.answer(&mut self.store, number, answer, ctx.clock) {
                    ctx.oracle.must(!matches!(why, GiveUp::Wrong(_)), "G23", || format!("a pull came to {why}"));
                    r.pull = None;
                }
            }
            _ => pull.puller.ended(&mut self.store, number, ctx.clock),
        }
        self.pull_on(ctx);
    }

    /// A replica that has not heard of its primary for too long wants to be it.
    fn promote_by_itself(&mut self, ctx: &mut Ctx<'_>) {
        let Run::Replica(r) = &mut self.run else { return };
        if r.is_busy() || self.store.full {
            return;
        }
        if std::mem::take(&mut r.claim) {
            return self.promote(ctx, Grounds::SteppedDown, false);
        }
        // Whoever is not required tries too, later: it may be the one with the last word (a primary that stepped down or was superseded, and
        // nobody came), and has no less than a majority of the required ones or is refused.
        let required = self.store.state.required() >> ctx.me & 1 == 1;
        let patience = r.patience * if required { 1 } else { 2 };
        let grounds = match ctx.config.mode {
            Mode::Statement => return,
            Mode::Leases => Grounds::Leases,
            Mode::Arbiter => Grounds::Arbiter,
        };
        if ctx.clock > r.heard + patience {
            r.heard = ctx.clock;
            r.patience = Duration::from_millis(4000 + ctx.random.below(12_000));
            self.promote(ctx, grounds, false);
        }
    }

    /// This node is to become the primary.
    pub fn promote(&mut self, ctx: &mut Ctx<'_>, grounds: Grounds, forced: bool) {
        let mine = self.standing();
        ctx.say(|| format!("stands {mine:?} required {:b}", self.store.state.required()));
        let mut lessors = nodes_of(self.store.state.required());
        if lessors.is_empty() && mine.part == Part::Superseded {
            // It wrote last, alone: whoever was promoted since had this node join.
            lessors.insert(ctx.id());
        }
        let Run::Replica(r) = &mut self.run else { return };
        if mine.part == Part::Primary || r.is_busy() {
            return;
        }
        ctx.say(|| format!("wants to be the primary: {grounds:?}"));
        self.store.flush();
        r.receiver.disconnected();
        r.refused = None;
        let candidate = Candidate {
            ve: ve_id(ctx.ve),
            me: ctx.id(),
            mine: aspfs_replica::member::Standing { position: self.store.durable_head(), ..mine },
            members: ctx.config.members[ctx.ve].iter().map(|n| id(*n)).collect(),
            lessors,
            known: None,
            leases: ctx.config.mode == Mode::Leases,
        };
        r.promotion = Some(Running { machine: Promotion::new(candidate, grounds, forced), grounds, forced });
        self.promotion(ctx, Event::Tick);
    }

    fn promotion(&mut self, ctx: &mut Ctx<'_>, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Run::Replica(r) = &mut self.run else { return };
            let Some(running) = &mut r.promotion else { return };
            for action in running.machine.step(event, ctx.clock) {
                self.promote_action(ctx, action, &mut events);
            }
        }
    }

    fn promote_action(&mut self, ctx: &mut Ctx<'_>, action: PromoteAction, events: &mut VecDeque<Event>) {
        match action {
            PromoteAction::Ask(node, question @ Question::Promoted(..)) => ctx.ask(node, Purpose::Tell(None), question),
            PromoteAction::Ask(node, question @ Question::Join(e)) => ctx.ask(node, Purpose::Join(e), question),
            PromoteAction::Ask(node, question) => ctx.ask(node, Purpose::Promotion, question),
            PromoteAction::JoinHere(epoch) => {
                let me = ctx.id();
                events.push_back(Event::JoinedHere(self.join(ctx, epoch, me)));
            }
            PromoteAction::Arbiter(request) => ctx.ask_arbiter(Purpose::PromotionArbiter, &request),
            PromoteAction::Record(old) => {
                events.push_back(if self.over(old, Epoch(vefs::limits::COUNTER_MAX)) {
                    Event::Recorded
                } else {
                    Event::Failed
                });
            }
            PromoteAction::Verify => events.push_back(Event::Verified(self.store.has_objects())),
            PromoteAction::WriteRole(epoch, fork) => {
                // Something may have come in since the head was looked at, and another epoch may have been heard of.
                let as_it_was = self.store.head() == fork && self.store.durable_head() == fork;
                let right = as_it_was && epoch >= self.store.role.epoch && !self.store.full;
                events.push_back(if right { Event::RoleWritten } else { Event::Failed });
            }
            PromoteAction::Open(chosen) => {
                let Run::Replica(r) = &mut self.run else { return };
                let Some(running) = r.promotion.take() else { return };
                self.opens(ctx, &running, chosen.epoch, chosen.fork);
            }
            PromoteAction::Refuse(why) => {
                ctx.say(|| format!("is not promoted: {why:?}"));
                if let Run::Replica(r) = &mut self.run {
                    (r.promotion, r.refused) = (None, Some(why));
                }
            }
        }
    }

    fn opens(&mut self, ctx: &mut Ctx<'_>, running: &Running, epoch: Epoch, fork: Position) {
        let required = self.store.state.required() >> ctx.me & 1 == 1;
        let by_itself = matches!(running.grounds, Grounds::Leases | Grounds::Arbiter);
        let lags = ctx.oracle.lags(ctx.ve) && ctx.config.policy[ctx.ve].recorded;
        let window = ctx.config.policy[ctx.ve].window;
        let (_, lost) = ctx.oracle.promoted(ctx.ve, ctx.me, &self.store, window, required && !running.forced);
        let me = ctx.me;
        ctx.oracle.must(!(by_itself && lags && lost > 0), "G16", || {
            format!("node {me} was promoted by itself while the VE lags, and lacks {lost} operations")
        });
        self.open_as_primary(ctx, epoch, fork);
    }

    /// A reply to a replica's question.
    pub fn replica_replied(&mut self, ctx: &mut Ctx<'_>, from: usize, purpose: Purpose, reply: Option<Reply>) {
        match (purpose, reply) {
            (Purpose::Back, Some(reply)) => self.came_back(ctx, from, reply),
            // Of another epoch than the one that is asked for now it counts for nothing.
            (Purpose::Join(e), reply) if self.claims() == Some(e) => {
                self.promotion(ctx, Event::Replied(id(from), reply));
            }
            (Purpose::Promotion, reply) => self.promotion(ctx, Event::Replied(id(from), reply)),
            (Purpose::Switchover, _) => self.primary_replied(ctx, from, purpose, reply),
            _ => {}
        }
    }

    pub fn replica_arbiter(&mut self, ctx: &mut Ctx<'_>, purpose: Purpose, reply: Option<arbiter::Reply>) {
        match purpose {
            Purpose::PromotionArbiter => self.promotion(ctx, Event::Arbiter(reply)),
            Purpose::SwitchoverArbiter => self.primary_arbiter(ctx, purpose, reply),
            _ => {}
        }
    }

    /// Where a promotion that was refused should happen.
    pub fn hint(&self) -> Option<usize> {
        match &self.run {
            Run::Replica(r) => match r.refused {
                Some(Refused::Later(node, _)) => Some(index(node)),
                _ => None,
            },
            Run::Primary(_) => None,
        }
    }
}
