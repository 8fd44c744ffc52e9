//! What this node does for others: takes the streams of VEs that it follows, serves whole states, answers questions.

use std::collections::btree_map::Entry;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{block_in_place, spawn_blocking};
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Lineage, Position, TxnNo, VeId};

use super::Inner;
use super::follow::{Following, Next};
use super::pace::Pays;
use super::peers::Word;
use super::pull::{Pull, Source};
use super::talk::{Question, Reply};
use crate::catchup::{Answer, Refused, Serving};
use crate::local::LocalSource;
use crate::net::{AnswerWriter, FrameReader, FrameWriter, Handler, URGENT};
use crate::node::NodeId;
use crate::wire::{self, Envelope, Hello, Message, Refusal};

/// While a state is being made ready, its asker hears something this often.
const WORKING: Duration = Duration::from_secs(5);

/// This node for its peers.
pub(super) struct Server(pub Weak<Inner>);

impl Handler for Server {
    async fn frames(&self, from: NodeId, writer: FrameWriter, reader: FrameReader) {
        // Whatever goes the other way: a primary learns from it what it may accept.
        writer.prefer(URGENT);
        if let Some(inner) = self.0.upgrade() {
            inner.take_stream(from, writer, reader).await;
        }
    }

    async fn bulk(&self, from: NodeId, reader: FrameReader) {
        take_bulk(&self.0, from, reader).await;
    }

    async fn request(&self, from: NodeId, request: Bytes, answers: AnswerWriter) {
        let Some(inner) = self.0.upgrade() else { return };
        if Question::is(&request) {
            answers.prefer(URGENT);
            inner.answer_question(from, &request, answers).await;
        } else {
            inner.serve_state(from, &request, answers).await;
        }
    }
}

/// What a greeting is answered with.
enum Greeted {
    Follow(Arc<Following>),
    Refuse(Refusal, Epoch),
    /// A whole state is being pulled, and until it is there the present one stays: it is durable up to here.
    Busy(TxnNo),
    /// The VE is not here: a whole state is to be pulled.
    Absent,
}

impl Inner {
    async fn take_stream(self: &Arc<Self>, from: NodeId, mut writer: FrameWriter, mut reader: FrameReader) {
        let Some((envelope, Message::Hello(hello))) = reader.first().await else { return };
        let Some(ve) = envelope.ve else { return };
        if !self.may_greet(from, ve, hello.position.lineage, envelope.epoch).await {
            self.strangers.count(Word::Hello, from, Some(ve));
            return refuse(&mut writer, &envelope, Refusal::Stranger, envelope.epoch).await;
        }
        match block_in_place(|| self.greeted(ve, envelope.epoch, &hello)) {
            Greeted::Follow(following) => {
                let next = following.serve((envelope, Message::Hello(hello)), reader, writer).await;
                self.after(&following, from, envelope.epoch, hello.position.lineage, next);
            }
            Greeted::Refuse(why, epoch) => refuse(&mut writer, &envelope, why, epoch).await,
            Greeted::Busy(at) => {
                self.source_may_be_past(ve, envelope.epoch);
                refuse_at(&mut writer, &envelope, Refusal::NotReady, envelope.epoch, at).await;
            }
            Greeted::Absent => {
                self.source_may_be_past(ve, envelope.epoch);
                refuse(&mut writer, &envelope, Refusal::NotReady, envelope.epoch).await;
                let have = Position { lineage: hello.position.lineage, ..Position::default() };
                self.pull_first(ve, from, envelope.epoch, have);
            }
        }
    }

    /// Who greets is one of the VE's nodes, and its epoch decides who writes (promises G10, G18).
    fn greeted(self: &Arc<Self>, ve: VeId, epoch: Epoch, hello: &Hello) -> Greeted {
        let lineage = hello.position.lineage;
        if self.store.is_buried(lineage) {
            return Greeted::Refuse(Refusal::Destroyed, epoch);
        }
        if !self.store.has_ve(ve) {
            let voted = self.lessors.voted(lineage);
            return if epoch < voted { Greeted::Refuse(Refusal::OldEpoch, voted) } else { Greeted::Absent };
        }
        let found = match self.store.ve(ve) {
            Ok(found) => found,
            Err(e) => {
                tracing::error!(%ve, error = %e, "a VE that is to follow");
                return Greeted::Refuse(Refusal::Store, epoch);
            }
        };
        if found.identity().lineage != lineage {
            return Greeted::Refuse(Refusal::ForeignLineage, epoch);
        }
        let ours = found.epoch();
        if epoch < ours {
            let why = if found.is_writer() { Refusal::Primary } else { Refusal::OldEpoch };
            return Greeted::Refuse(why, ours);
        }
        if found.is_writer() && epoch == ours {
            return Greeted::Refuse(Refusal::Primary, ours);
        }
        if found.role().kind != RoleKind::Replica {
            // Another node was promoted: this one follows it from now on.
            tracing::error!(%ve, epoch = epoch.0, "ALARM: another node was promoted: this one follows it");
            found.fence("another node took it over");
            self.stop_leading(ve);
            if let Err(e) = found.step_down(RoleKind::Replica, epoch) {
                tracing::error!(%ve, error = %e, "stepping down");
                return Greeted::Refuse(Refusal::Store, ours);
            }
        }
        let found = match self.store.reopen_follower(ve) {
            Ok(found) => found,
            Err(e) => {
                tracing::error!(%ve, error = %e, "opening a VE that follows anew");
                return Greeted::Refuse(Refusal::Store, epoch);
            }
        };
        let new = || Following::new(found.clone(), self.cluster.node(), self.clock.clone());
        // The table is let go before the VE's own locks are taken: whoever has those may be waiting for the disk.
        let following = self.followed.lock().entry(ve).or_insert_with(new).clone();
        if following.pulling.load(Ordering::Acquire) {
            return Greeted::Busy(following.ve().durable_position().txn);
        }
        following.adopt(found);
        Greeted::Follow(following)
    }

    /// What the end of a stream calls for.
    fn after(self: &Arc<Self>, following: &Arc<Following>, from: NodeId, epoch: Epoch, lineage: Lineage, next: Next) {
        let have = following.ve().position();
        let branch = match next {
            Next::Nothing => return,
            Next::CatchUp => None,
            Next::Rewind => Some(format!("epoch-{}.{}-txn-{}", have.epoch.term(), have.epoch.0 as u32, have.txn)),
        };
        let have = Position { lineage, ..have };
        self.pull(following.ve().id(), from, epoch, have, branch);
    }

    /// A node that writes a VE, or a former one whose disk stands still, may say for long that it is working on its state. Whoever was promoted meanwhile
    /// greets, and must not wait for that with everything that it writes lacking here (promise G14).
    fn source_may_be_past(&self, ve: VeId, epoch: Epoch) {
        if let Some(source) = self.pulls.lock().get(&ve) {
            source.greeted(epoch);
        }
    }

    /// Pulls the state of a VE that was not here when its writer greeted. A pull that another greeting had begun may have ended meanwhile: then it is
    /// here, and what it has acknowledged since is not to be replaced by something older (promises G9, G11).
    fn pull_first(self: &Arc<Self>, ve: VeId, from: NodeId, epoch: Epoch, have: Position) {
        let Some(source) = self.pull_alone(ve, from, epoch) else { return };
        // Asked when no other pull can install it any more.
        if self.store.has_ve(ve) {
            self.pulls.lock().remove(&ve);
            return;
        }
        self.begin_pull(ve, source, have, None);
    }

    /// The right to pull a VE, unless that is going on.
    fn pull_alone(&self, ve: VeId, from: NodeId, epoch: Epoch) -> Option<Arc<Source>> {
        match self.pulls.lock().entry(ve) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => Some(place.insert(Arc::new(Source::new(from, epoch))).clone()),
        }
    }

    /// Pulls a whole state in the background, unless that is going on.
    pub(super) fn pull(self: &Arc<Self>, ve: VeId, from: NodeId, epoch: Epoch, have: Position, branch: Option<String>) {
        if let Some(source) = self.pull_alone(ve, from, epoch) {
            self.begin_pull(ve, source, have, branch);
        }
    }

    fn begin_pull(self: &Arc<Self>, ve: VeId, source: Arc<Source>, have: Position, branch: Option<String>) {
        let following = self.followed.lock().get(&ve).cloned();
        if let Some(following) = &following {
            following.pulling.store(true, Ordering::Release);
            following.disconnect();
        }
        let pull = Pull {
            store: self.store.clone(),
            transport: self.transport().clone(),
            clock: self.clock.clone(),
            ve,
            lineage: have.lineage,
            have,
            source,
            branch: branch.clone(),
        };
        let (this, from) = (self.clone(), pull.source.node);
        tracing::info!(%ve, %from, branch, "pulling a whole state");
        self.runtime.spawn(async move {
            match pull.run().await {
                Ok(new) => {
                    if let Some(following) = &following {
                        following.replace(new);
                    }
                }
                Err(e) => tracing::error!(%ve, %from, error = %e, "no whole state"),
            }
            if let Some(following) = &following {
                following.pulling.store(false, Ordering::Release);
            }
            this.pulls.lock().remove(&ve);
        });
    }

    /// Serves a question of a node that catches up.
    async fn serve_state(self: &Arc<Self>, from: NodeId, request: &[u8], mut answers: AnswerWriter) {
        let mut serving = match Serving::of(from, request) {
            Ok(serving) => serving,
            Err(answer) => {
                let _ = answers.send(answer.encode(false)).await;
                let _ = answers.finish().await;
                return;
            }
        };
        if !block_in_place(|| self.may_have(from, serving.ask())) {
            self.strangers.count(Word::State, from, serving.ask().ve());
            let _ = answers.send(Answer::Refused(Refused::NotAllowed).encode(false)).await;
            let _ = answers.finish().await;
            return;
        }
        let mut pays = Pays::default();
        loop {
            let compress = pays.try_it();
            let mut source = LocalSource::new(self.store.clone(), self.clock.clone(), self.held.clone());
            let mut made = spawn_blocking(move || {
                let answer = serving.next(&mut source);
                (serving, answer.map(|a| (a.carried(), a.encode(compress))))
            });
            let answer = loop {
                match tokio::time::timeout(WORKING, &mut made).await {
                    Ok(Ok((s, answer))) => {
                        serving = s;
                        break answer;
                    }
                    Ok(Err(_)) => return,
                    Err(_) => {
                        if answers.send(Answer::Working.encode(false)).await.is_err() {
                            return;
                        }
                    }
                }
            };
            let Some((carried, answer)) = answer else { break };
            pays.took(carried as u64, answer.len() as u64);
            if answers.send(answer).await.is_err() {
                return;
            }
        }
        let _ = answers.finish().await;
    }

    async fn answer_question(self: &Arc<Self>, from: NodeId, request: &[u8], mut answers: AnswerWriter) {
        let reply = match Question::decode(request) {
            Ok(question) => self.reply(from, question).await,
            Err(e) => Reply::No(e.to_string()),
        };
        let _ = answers.send(reply.encode()).await;
        let _ = answers.finish().await;
    }

    /// This node follows a VE no more. The streams end when the frame that is being taken is.
    pub(super) fn stop_following(&self, ve: VeId) {
        let gone = self.followed.lock().remove(&ve);
        if let Some(following) = gone {
            following.disconnect();
        }
    }

    /// A VE was destroyed elsewhere: it goes here, too, and is not forgotten to be gone (promise G34).
    pub(super) fn bury(&self, ve: VeId, lineage: Lineage) -> vefs::Result<()> {
        self.stop_leading(ve);
        self.stop_following(ve);
        self.lessors.forget(lineage);
        block_in_place(|| self.store.bury_ve(ve, lineage))
    }

    /// Whether this node has the right to write a VE at this moment, as far as an arbiter is concerned.
    fn may_write(&self, ve: VeId) -> bool {
        self.led.lock().get(&ve).is_none_or(|led| led.exposed.may_write())
    }

    /// What somebody asks who is none of the VE's nodes (promise G30). A VE that is not here, or has another history here, has none: nobody has it
    /// declared destroyed before it comes.
    fn word_of_a_stranger(&self, from: NodeId, question: &Question) -> Option<Word> {
        let (word, ve, lineage) = match question {
            Question::Position { ve, lineage } => (Word::Position, *ve, *lineage),
            Question::Destroyed { ve, lineage } => (Word::Destroyed, *ve, *lineage),
            Question::Member { ve, lineage, .. } => (Word::Member, *ve, *lineage),
            Question::TakeOver { ve, position, .. } => (Word::TakeOver, *ve, position.lineage),
            Question::Root { ve, position } => (Word::State, *ve, position.lineage),
            Question::Beyond { ve, position } => (Word::Position, *ve, position.lineage),
            Question::Right { ve, lineage, .. } => (Word::Right, *ve, *lineage),
        };
        match (self.of_lineage(ve, lineage), word) {
            (Some(found), _) => !self.members(&found).contains(&from),
            (None, Word::Destroyed) => !self.store.is_buried(lineage),
            (None, _) => false,
        }
        .then_some(word)
    }

    async fn reply(self: &Arc<Self>, from: NodeId, question: Question) -> Reply {
        if let Some(word) = block_in_place(|| self.word_of_a_stranger(from, &question)) {
            self.strangers.count(word, from, Some(question.ve()));
            return Reply::Stranger;
        }
        match question {
            Question::Position { lineage, .. } if self.store.is_buried(lineage) => Reply::Destroyed,
            Question::Member { ve, lineage, node, epoch } => block_in_place(|| match self.of_lineage(ve, lineage) {
                Some(found) if self.vouches(&found, node, epoch) => Reply::Done,
                _ => Reply::No("not known here to be one of the VE's nodes".into()),
            }),
            Question::Position { ve, lineage } => block_in_place(|| match self.store.ve(ve) {
                Ok(found) if self.store.has_ve(ve) && found.identity().lineage == lineage => Reply::At {
                    position: found.durable_position(),
                    epoch: found.epoch(),
                    writes: found.is_writer() && found.fenced().is_none() && self.may_write(ve),
                },
                Ok(_) => Reply::No("the VE here has another history".into()),
                Err(e) => Reply::No(e.to_string()),
            }),
            Question::Root { ve, position } => self.root_of(ve, position).await,
            Question::Beyond { ve, position } => self.beyond(ve, position).await,
            Question::Right { ve, lineage, what } => {
                Reply::Right(block_in_place(|| self.answer_about_right((from, ve, lineage), what)))
            }
            // Before anything is kept for it.
            Question::TakeOver { ve, .. } if !self.store.has_ve(ve) => Reply::No(format!("there is no VE {ve} here")),
            Question::TakeOver { ve, position, epoch } => {
                let operating = self.operating(ve);
                let _one = operating.lock().await;
                match self.take_over(ve, from, position, epoch).await {
                    Ok(epoch) => Reply::Taken(epoch),
                    Err(e) => Reply::No(e.to_string().chars().take(500).collect()),
                }
            }
            Question::Destroyed { ve, lineage } => {
                tracing::warn!(%ve, %from, "destroyed by another node");
                match self.bury(ve, lineage) {
                    Ok(()) => Reply::Done,
                    Err(e) => Reply::No(e.to_string()),
                }
            }
        }
    }
}

/// Takes a stream of bulk to its end. The sessions of VEs that it names were greeted on streams of their own.
async fn take_bulk(inner: &Weak<Inner>, from: NodeId, mut reader: FrameReader) {
    while let Ok(Some((envelope, message))) = reader.next().await {
        let Some(inner) = inner.upgrade() else { return };
        let Some(ve) = envelope.ve else { return };
        let following = inner.followed.lock().get(&ve).cloned();
        if let Some(following) = following {
            block_in_place(|| following.take_bulk(from, &envelope, message));
        }
    }
}

/// Turns a greeting away. The epoch tells a former primary that it is one (promise G18).
async fn refuse(writer: &mut FrameWriter, envelope: &Envelope, why: Refusal, epoch: Epoch) {
    refuse_at(writer, envelope, why, epoch, TxnNo(0)).await;
}

/// As [`refuse`], by a replica that has something.
async fn refuse_at(writer: &mut FrameWriter, envelope: &Envelope, why: Refusal, epoch: Epoch, at: TxnNo) {
    tracing::info!(ve = ?envelope.ve.map(|v| v.to_string()), why = why.name(), "a primary was turned away");
    let answer = Envelope { epoch, seq: 0, ..*envelope };
    let frame = wire::encode(&Message::Refused(why, at), answer, false);
    if writer.send(frame).await.is_ok() {
        // The other side closes when it has read this.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
