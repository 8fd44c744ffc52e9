use std::sync::mpsc::{Receiver, Sender, channel};

use super::carry::Next;
use super::*;

const VERDICTS: [Verdict; 3] = [Verdict::Go, Verdict::Wait, Verdict::Fenced];

/// Says what it was told to say.
struct Script(Mutex<(Verdict, Verdict)>);

impl Script {
    fn say(&self, admit: Verdict, complete: Verdict) {
        *self.0.lock() = (admit, complete);
    }
}

impl Judge for Script {
    fn admit(&self, _bytes: u64) -> Verdict {
        self.0.lock().0
    }

    fn complete(&self) -> Verdict {
        self.0.lock().1
    }
}

struct Bed {
    script: Arc<Script>,
    gate: Arc<RwLock<()>>,
    parked: Arc<Parked>,
    queue: Arc<pool::Queue>,
    done: Receiver<(u64, Turn)>,
    tell: Sender<(u64, Turn)>,
}

/// A mount that no thread looks after, in a stalled VE.
fn bed() -> Bed {
    let (script, gate) = (Arc::new(Script(Mutex::new((Verdict::Wait, Verdict::Wait)))), Arc::default());
    let queue = Arc::new(pool::Queue::default());
    let parked = queue.mount(script.clone(), Arc::clone(&gate), None, |asker| asker.pid == 13);
    let (tell, done) = channel();
    Bed { script, gate, parked, queue, done, tell }
}

impl Bed {
    fn act(&self, number: u64) -> Act {
        let tell = self.tell.clone();
        Box::new(move |turn| tell.send((number, turn)).unwrap())
    }

    fn park(&self, number: u64, due: Option<Instant>) {
        self.park_of(number, due, 1);
    }

    fn park_of(&self, number: u64, due: Option<Instant>, pid: u32) {
        let asker = Asker { unique: number, pid, ..Asker::default() };
        let Ok(place) = self.parked.place(10) else { panic!("no place") };
        place.park(asker, due, self.act(number));
    }

    fn park_answer(&self, number: u64, pid: u32) {
        self.parked.park_answer(Asker { unique: number, pid, ..Asker::default() }, self.act(number));
    }

    /// What has been done since the last call.
    fn done(&self) -> Vec<(u64, Turn)> {
        self.done.try_iter().collect()
    }

    fn bytes(&self) -> u64 {
        self.parked.state.lock().room.taken()
    }
}

fn gone(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, Turn)> {
    numbers.into_iter().map(|n| (n, Turn::Go)).collect()
}

/// checks G16
#[test]
fn a_stalled_ve_s_operations_wait_and_then_begin_in_their_order() {
    let bed = bed();
    let now = Instant::now();
    assert_eq!(bed.parked.admission(1), Admission::Park(None));
    (1..=3).for_each(|n| bed.park(n, None));
    assert!(matches!(bed.parked.carry(now), Next::At(at) if at > now));
    assert_eq!((bed.done(), bed.parked.count()), (vec![], 3));

    // Until the first one goes, nobody overtakes.
    bed.script.say(Verdict::Go, Verdict::Go);
    assert_eq!(bed.parked.admission(1), Admission::Park(None));
    assert_eq!(bed.parked.carry(now), Next::Idle);
    assert_eq!(bed.done(), gone(1..=3));
    assert_eq!((bed.parked.count(), bed.parked.total(), bed.bytes()), (0, 3, 0));
    assert_eq!(bed.parked.admission(1), Admission::Go);
}

/// checks G15: a delay is kept, and it is given once.
#[test]
fn a_delayed_operation_begins_when_it_is_due() {
    let bed = bed();
    let delay = Duration::from_millis(40);
    bed.script.say(Verdict::Delay(delay), Verdict::Go);
    let before = Instant::now();
    let Admission::Park(Some(due)) = bed.parked.admission(1) else { panic!("not delayed") };
    assert!(due >= before + delay);
    bed.park(1, Some(due));
    // Behind one that waits nobody is asked for before his turn.
    assert_eq!(bed.parked.admission(1), Admission::Park(None));
    bed.park(2, None);
    assert_eq!(bed.parked.carry(before), Next::At(due));
    assert_eq!(bed.done(), []);
    assert_eq!(bed.parked.carry(due), Next::At(due + delay));
    assert_eq!(bed.done(), gone([1]));
    assert_eq!(bed.parked.admission(1), Admission::Park(None));
    assert_eq!(bed.parked.carry(due + delay), Next::Idle);
    assert_eq!(bed.done(), gone([2]));

    // One that is due in a stalled VE waits.
    bed.park(3, Some(due));
    bed.script.say(Verdict::Wait, Verdict::Wait);
    assert!(matches!(bed.parked.carry(due), Next::At(_)));
    assert_eq!(bed.done(), []);
    bed.script.say(Verdict::Delay(delay), Verdict::Go);
    assert_eq!(bed.parked.carry(due), Next::Idle);
    assert_eq!(bed.done(), gone([3]));

    bed.script.say(Verdict::Delay(DELAY_MIN / 2), Verdict::Go);
    assert_eq!(bed.parked.admission(1), Admission::Go);
}

/// checks G14: what was carried out is not told while the VE is stalled.
#[test]
fn answers_wait_for_the_verdict_on_answers() {
    let bed = bed();
    let now = Instant::now();
    for (complete, turn) in [(Verdict::Go, Turn::Go), (Verdict::Fenced, Turn::Refuse(Errno::EROFS))] {
        bed.script.say(Verdict::Wait, Verdict::Wait);
        assert_eq!(bed.parked.completion(), None);
        bed.park_answer(1, 1);
        bed.park_answer(2, 1);
        assert!(matches!(bed.parked.carry(now), Next::At(_)));
        assert_eq!(bed.done(), []);
        bed.script.say(Verdict::Wait, complete);
        assert_eq!(bed.parked.completion(), Some(turn));
        assert_eq!(bed.parked.carry(now), Next::Idle);
        assert_eq!(bed.done(), [(1, turn), (2, turn)]);
    }
}

/// checks G20
#[test]
fn a_fence_answers_everybody() {
    // Whether the operations or the answers are refused first.
    for (admit, complete) in [(Verdict::Fenced, Verdict::Fenced), (Verdict::Fenced, Verdict::Wait)] {
        let bed = bed();
        (1..=100).for_each(|n| bed.park(n, None));
        bed.park_answer(101, 1);
        assert!(matches!(bed.parked.carry(Instant::now()), Next::At(_)));
        bed.script.say(admit, complete);
        assert_eq!(bed.parked.carry(Instant::now()), Next::Idle);
        let all: Vec<_> = (1..=101).map(|n| (n, Turn::Refuse(Errno::EROFS))).collect();
        assert_eq!(bed.done(), all);
        assert_eq!((bed.parked.count(), bed.bytes()), (0, 0));
        assert_eq!(bed.parked.admission(1), Admission::Refuse(Errno::EROFS));
    }
}

/// checks G7, G20: what a stopped daemon leaves is for the next one, and what waits for a mount that is gone is for nobody.
#[test]
fn an_end_leaves_nothing_behind() {
    for (end, turn) in [(Parked::stop as fn(&Parked), Turn::Leave), (Parked::close, Turn::Refuse(Errno::EIO))] {
        let bed = bed();
        bed.park(1, None);
        bed.park_answer(2, 1);
        let Ok(late) = bed.parked.place(10) else { panic!("no place") };
        end(&bed.parked);
        assert_eq!(bed.done(), [(1, turn), (2, turn)]);
        // Whoever was about to park.
        late.park(Asker::default(), None, bed.act(3));
        bed.park_answer(4, 1);
        assert_eq!(bed.done(), [(3, turn), (4, turn)]);
        assert_eq!(bed.parked.place(10).err(), Some(NoPlace::Ended(turn)));
        assert_eq!((bed.parked.count(), bed.bytes()), (0, 0));
        bed.script.say(Verdict::Go, Verdict::Go);
        assert_eq!(bed.parked.carry(Instant::now()), Next::Idle);
        assert_eq!(bed.done(), []);
    }
}

/// checks G20: a program that was killed can end.
#[test]
fn a_killed_caller_is_let_go() {
    let bed = bed();
    for (n, pid) in [(1, 13), (2, 1), (3, 13), (4, 0)] {
        bed.park_of(n, None, pid);
    }
    bed.park_answer(5, 13);
    bed.park_answer(6, 1);
    let now = Instant::now();
    assert!(matches!(bed.parked.carry(now), Next::At(_)));
    let eintr = Turn::Refuse(Errno::EINTR);
    assert_eq!(bed.done(), [(1, eintr), (3, eintr), (5, Turn::Go)]);
    // The rest waits on, and is looked after again.
    bed.park_of(7, None, 13);
    let Next::At(again) = bed.parked.carry(now) else { panic!("nothing waits") };
    assert_eq!(bed.done(), []);
    bed.parked.carry(again);
    assert_eq!(bed.done(), [(7, eintr)]);
    bed.script.say(Verdict::Go, Verdict::Go);
    assert_eq!(bed.parked.carry(again), Next::Idle);
    assert_eq!(bed.done(), gone([6, 2, 4]));
    assert_eq!(bed.bytes(), 0);
}

/// Of more callers than are looked after at a time, each has its turn.
#[test]
fn every_caller_is_looked_after() {
    let bed = bed();
    let all = SWEEPS as u64 * 256;
    (1..all).for_each(|n| bed.park(n, None));
    bed.park_of(all, None, 13);
    let mut now = Instant::now();
    for _ in 0..SWEEPS {
        assert_eq!(bed.done(), []);
        let Next::At(again) = bed.parked.carry(now) else { panic!("nothing waits") };
        now = again;
    }
    assert_eq!(bed.done(), [(all, Turn::Refuse(Errno::EINTR))]);
}

const SWEEPS: usize = 3;

/// checks G7: nothing is carried out in a mount that is stopped.
#[test]
fn nothing_begins_behind_a_shut_gate() {
    let bed = bed();
    bed.park(1, None);
    bed.script.say(Verdict::Go, Verdict::Go);
    let shut = bed.gate.write();
    let now = Instant::now();
    assert!(matches!(bed.parked.carry(now), Next::At(at) if at > now));
    assert_eq!(bed.done(), []);
    drop(shut);
    assert_eq!(bed.parked.carry(now), Next::Idle);
    assert_eq!(bed.done(), gone([1]));
}

/// checks G33: memory is bounded, and who has no room waits until there is some or none is needed.
#[test]
fn requests_without_room_wait_outside() {
    for free in [|bed: &Bed| assert_eq!(bed.parked.carry(Instant::now()), Next::Idle), |bed: &Bed| bed.parked.stop()] {
        let bed = bed();
        let Ok(large) = bed.parked.place(room::MOUNT) else { panic!("the first one always has room") };
        large.park(Asker::default(), None, bed.act(1));
        assert_eq!(bed.parked.place(1).err(), Some(NoPlace::Full));
        std::thread::scope(|s| {
            let reader = s.spawn(|| bed.parked.wait_for_room(1));
            while bed.parked.count() < 2 {
                std::thread::yield_now();
            }
            assert!(!reader.is_finished());
            bed.script.say(Verdict::Go, Verdict::Go);
            free(&bed);
            reader.join().unwrap();
        });
        assert_eq!((bed.done().len(), bed.parked.count(), bed.bytes()), (1, 0, 0));
    }
}

/// A place that is not used is given back.
#[test]
fn an_unused_place_is_free_again() {
    let bed = bed();
    drop(bed.parked.place(room::MOUNT));
    assert_eq!(bed.bytes(), 0);
    assert!(bed.queue.is_idle());
}

/// Many mounts, whose verdicts change all the time: each request is done once, in its mount's order, and no wake-up is lost.
#[test]
fn the_pool_does_everything_once() {
    const MOUNTS: u64 = 8;
    const EACH: u64 = 400;
    let pool = Pool::start().unwrap();
    let script = Arc::new(Script(Mutex::new((Verdict::Wait, Verdict::Wait))));
    let (tell, done) = channel();
    let mounts: Vec<_> = (0..MOUNTS).map(|_| pool.mount(script.clone(), Arc::default(), None)).collect();
    std::thread::scope(|s| {
        for (m, mount) in mounts.iter().enumerate() {
            let (tell, script) = (tell.clone(), &script);
            s.spawn(move || {
                for n in 0..EACH {
                    let tell = tell.clone();
                    let act: Act = Box::new(move |turn| tell.send((m, n, turn)).unwrap());
                    if n % 10 == 9 {
                        mount.park_answer(Asker::default(), act);
                    } else if let Ok(place) = mount.place(n) {
                        place.park(Asker::default(), None, act);
                    }
                    if n % 40 == 39 {
                        script.say(VERDICTS[(n / 40 % 2) as usize], VERDICTS[(n / 40 % 2) as usize]);
                        mount.wake();
                    }
                }
            });
        }
    });
    script.say(Verdict::Go, Verdict::Go);
    mounts.iter().for_each(Parked::wake);
    let mut seen: Vec<(usize, u64, Turn)> = (0..MOUNTS * EACH).map(|_| done.recv().unwrap()).collect();
    for m in 0..MOUNTS as usize {
        let order: Vec<u64> =
            seen.iter().filter(|(mount, n, _)| *mount == m && n % 10 != 9).map(|(_, n, _)| *n).collect();
        assert!(order.is_sorted(), "mount {m}: {order:?}");
    }
    assert!(seen.iter().all(|(_, _, turn)| *turn == Turn::Go));
    seen.sort_by_key(|(m, n, _)| (*m, *n));
    seen.dedup_by_key(|(m, n, _)| (*m, *n));
    assert_eq!(seen.len() as u64, MOUNTS * EACH);
    drop((pool, tell));
    assert!(done.recv().is_err(), "something was left");
}
