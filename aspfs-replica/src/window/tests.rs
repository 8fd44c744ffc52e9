//! The window against a naive account of every change ever made.

use proptest::prelude::*;

use super::*;

const A: NodeId = NodeId([1; 16]);
const B: NodeId = NodeId([2; 16]);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn policy(at_window: AtWindow, recorded: bool) -> Policy {
    Policy { window: ms(2000), at_window, recorded }
}

fn window(at: AtWindow, recorded: bool) -> Window {
    let mut w = Window::new(policy(at, recorded), TxnNo(0), ms(0));
    w.set_replica(A, true, Some(TxnNo(0)), ms(0));
    w.take_events();
    w
}

#[derive(Clone, Debug)]
enum Step {
    Write { bytes: u64, early: u64 },
    Seal,
    Ack { node: bool, back: u64 },
    Pass(u64),
    Permit,
    Fence(bool),
    Back(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..100_000u64, 0..400u64).prop_map(|(bytes, early)| Step::Write { bytes, early }),
        4 => Just(Step::Seal),
        4 => (any::<bool>(), 0..6u64).prop_map(|(node, back)| Step::Ack { node, back }),
        6 => (0..900u64).prop_map(Step::Pass),
        2 => Just(Step::Permit),
        1 => prop::bool::weighted(0.2).prop_map(Step::Fence),
        1 => (0..5000u64).prop_map(Step::Back),
    ]
}

/// What is true, kept in full.
struct Account {
    changes: Vec<(u64, Duration)>,
    acked: [Option<u64>; 2],
    within: Option<u64>,
    open: u64,
    now: Duration,
}

impl Account {
    fn exposure(&self) -> Option<Duration> {
        let least = self.acked.iter().copied().collect::<Option<Vec<_>>>()?.into_iter().min()?;
        let waiting = self.changes.iter().filter(|(txn, _)| *txn > least).map(|(_, since)| *since);
        Some(waiting.min().map_or(ms(0), |since| self.now.saturating_sub(since)))
    }

    /// Takes note of what there was when the window was kept again, while the VE lags.
    fn keep(&mut self, over: bool, lags: bool) {
        let last = self.changes.last().map_or(0, |c| c.0);
        self.within = if over || !lags { None } else { self.within.or(Some(last)) };
    }

    /// Whether everything is acknowledged that had been accepted then.
    fn all_acked(&self) -> bool {
        self.within.is_some_and(|txn| self.acked.iter().all(|a| a.is_some_and(|a| a >= txn)))
    }
}

fn run(at: AtWindow, recorded: bool, steps: &[Step]) {
    let mut w = Window::new(policy(at, recorded), TxnNo(0), ms(0));
    w.set_replica(A, true, None, ms(0));
    w.set_replica(B, true, None, ms(0));
    let mut account = Account { changes: vec![], acked: [None; 2], within: None, open: 1, now: ms(0) };
    let (mut asked, mut granted, mut before) = (None, None, State::Unprotected);
    for step in steps {
        match step {
            Step::Write { bytes, early } => {
                if matches!(w.admit(*bytes, account.now), Verdict::Go | Verdict::Delay(_)) {
                    let since = account.now.saturating_sub(ms(*early));
                    account.changes.push((account.open, since));
                    w.accepted(TxnNo(account.open), since, *bytes, account.now);
                }
            }
            Step::Seal => account.open += 1,
            Step::Ack { node, back } => {
                let slot = &mut account.acked[usize::from(*node)];
                let txn = (account.open - 1).saturating_sub(*back);
                *slot = Some(slot.map_or(txn, |old| old.max(txn)));
                w.acked(if *node { B } else { A }, TxnNo(txn), account.now);
            }
            Step::Pass(t) => account.now += ms(*t),
            Step::Permit => {
                granted = asked.or(granted);
                asked.into_iter().for_each(|n| w.permitted(n, account.now));
            }
            Step::Fence(on) => w.set_fenced(*on, account.now),
            Step::Back(t) => w.tick(account.now.saturating_sub(ms(*t))),
        }
        let verdict = w.complete(account.now);
        let over = account.exposure().is_none_or(|t| t > ms(2000));
        // A fence only hides that it lags.
        let lags = |state| !matches!(state, State::Protected | State::Unprotected);
        account.keep(over, lags(before) || lags(w.state()));
        check(&w, &account, verdict, at, before);
        for event in w.take_events() {
            match event {
                Event::AskPermit(n) => asked = Some(n),
                Event::ReturnPermit(_) => (asked, granted) = (None, None),
                Event::Changed { to: State::Lagging, .. } if recorded => assert!(granted.is_some(), "unrecorded"),
                Event::Changed { .. } => {}
            }
        }
        before = w.state();
    }
}

fn check(w: &Window, account: &Account, verdict: Verdict, at: AtWindow, before: State) {
    let truth = account.exposure();
    match (w.exposure(), truth) {
        (Exposure::Known(e), Some(t)) => assert!(e >= t, "{e:?} is shown, {t:?} is true"),
        (Exposure::Known(e), None) => panic!("{e:?} is shown and nothing is known"),
        (Exposure::Unknown, _) => assert_ne!(w.state(), State::Protected),
    }
    let over = truth.is_none_or(|t| t > ms(2000));
    // checks G14
    assert!(!(over && verdict == Verdict::Go && w.state() == State::Protected));
    // checks G16
    assert!(!(over && verdict == Verdict::Go && at == AtWindow::Stall));
    assert_eq!(verdict == Verdict::Wait, w.state() == State::Stalled);
    // checks G17
    if before == State::Lagging && w.state() == State::Protected {
        assert!(account.all_acked(), "lagging cleared early");
    }
}

proptest! {
    /// checks G14, G16, G17
    #[test]
    fn the_window_holds(
        at in prop_oneof![Just(AtWindow::Degrade), Just(AtWindow::Stall), Just(AtWindow::Alarm)],
        recorded: bool,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        run(at, recorded, &steps);
    }

    /// Merging keeps the queue short and never makes anything look younger.
    #[test]
    fn a_short_queue_overstates(adds in prop::collection::vec((0..3u64, 0..1000u64, 0..100u64), 1..200), at in 0..400u64) {
        let (mut short, mut full) = (Pending::new(TxnNo(0), 8), Pending::new(TxnNo(0), 10_000));
        let mut txn = 1;
        for (step, since, bytes) in adds {
            txn += step;
            short.add(TxnNo(txn), ms(since), bytes);
            full.add(TxnNo(txn), ms(since), bytes);
        }
        prop_assert!(short.len() <= 8);
        match (short.oldest_after(TxnNo(at)), full.oldest_after(TxnNo(at))) {
            (Oldest::Since(s), Oldest::Since(f)) => prop_assert!(s <= f),
            (s, f) => prop_assert_eq!(s, f),
        }
        prop_assert!(short.behind(TxnNo(at)).0 >= full.behind(TxnNo(at)).0);
    }
}

/// checks G17
#[test]
fn no_replica_is_unprotected_and_never_zero() {
    let mut w = Window::new(policy(AtWindow::Degrade, false), TxnNo(7), ms(0));
    w.accepted(TxnNo(8), ms(0), 1, ms(0));
    assert_eq!((w.state(), w.exposure(), w.complete(ms(9000))), (State::Unprotected, Exposure::Unknown, Verdict::Go));
    w.set_replica(B, false, None, ms(9000));
    assert_eq!(w.state(), State::Unprotected);
    // One that lacks what is not remembered any more is not known, and one with everything is at zero.
    w.set_replica(A, true, None, ms(9000));
    assert_eq!((w.state(), w.exposure()), (State::Lagging, Exposure::Unknown));
    w.acked(A, TxnNo(6), ms(9000));
    assert_eq!(w.exposure(), Exposure::Unknown);
    w.acked(A, TxnNo(8), ms(9000));
    assert_eq!((w.state(), w.exposure()), (State::Protected, Exposure::Known(ms(0))));
}

/// Every policy at the window: the wait, the alarm, the breach and its seconds (checks G16, G17).
#[test]
fn each_policy_at_the_window() {
    for (at, at_window) in
        [(AtWindow::Degrade, State::Lagging), (AtWindow::Stall, State::Stalled), (AtWindow::Alarm, State::Lagging)]
    {
        let mut w = window(at, false);
        w.accepted(TxnNo(1), ms(100), 10, ms(100));
        assert_eq!(w.deadline(), Some(ms(2100) + Duration::from_nanos(1)));
        assert_eq!(w.complete(ms(2100)), Verdict::Go);
        assert_eq!((w.state(), w.take_events().len()), (State::Protected, 0));
        let verdict = w.complete(ms(2900));
        assert_eq!(w.state(), at_window);
        assert_eq!(verdict == Verdict::Wait, at == AtWindow::Stall);
        let changed = Event::Changed { from: State::Protected, to: at_window, at: ms(2900) };
        assert_eq!(w.take_events(), [changed]);
        w.accepted(TxnNo(2), ms(3000), 10, ms(3000));
        w.acked(A, TxnNo(1), ms(3100));
        assert_eq!(w.state() == State::Lagging, at != AtWindow::Stall);
        w.acked(A, TxnNo(2), ms(4100));
        assert_eq!(w.state(), State::Protected);
        let c = w.counters();
        match at {
            AtWindow::Stall => assert_eq!((c.breaches, c.stalled), (0, ms(200))),
            _ => assert_eq!((c.breaches, c.breached), (1, ms(2000)), "from the moment it was passed"),
        }
    }
}

/// A VE that is never idle has something under way at every moment; it was `lagging` for ever after its first breach. It ends when all that had
/// been accepted when the exposure was within the window again is acknowledged (checks G17).
#[test]
fn lagging_ends_under_constant_writing() {
    let mut w = window(AtWindow::Degrade, false);
    w.accepted(TxnNo(1), ms(0), 10, ms(0));
    w.tick(ms(2500));
    assert_eq!(w.state(), State::Lagging);
    w.accepted(TxnNo(2), ms(2600), 10, ms(2600));
    w.acked(A, TxnNo(1), ms(2700));
    assert_eq!(w.state(), State::Lagging, "within the window again, with transaction 2 accepted");
    w.accepted(TxnNo(3), ms(2800), 10, ms(2800));
    w.acked(A, TxnNo(2), ms(2900));
    assert_eq!((w.state(), w.replicas()[0].state), (State::Protected, State::Protected));
    assert_eq!(w.exposure(), Exposure::Known(ms(100)));
}

/// checks G16: an unrecorded `lagging` does not exist.
#[test]
fn lagging_waits_for_its_record() {
    let mut w = Window::new(policy(AtWindow::Degrade, true), TxnNo(0), ms(0));
    w.set_replica(A, true, Some(TxnNo(0)), ms(0));
    w.take_events();
    w.accepted(TxnNo(1), ms(0), 10, ms(0));
    assert_eq!(w.complete(ms(2001)), Verdict::Wait);
    let events = w.take_events();
    let number = match events[0] {
        Event::AskPermit(n) => n,
        other => panic!("{other:?}"),
    };
    w.permitted(number - 1, ms(2002));
    assert_eq!(w.state(), State::Stalled);
    w.permitted(number, ms(2002));
    assert_eq!((w.state(), w.complete(ms(2003))), (State::Lagging, Verdict::Go));
    w.acked(A, TxnNo(1), ms(2004));
    assert_eq!(w.state(), State::Protected);
    assert!(w.take_events().contains(&Event::ReturnPermit(number)));
    // The former permit is not one for the next breach.
    w.accepted(TxnNo(2), ms(3000), 10, ms(3000));
    assert_eq!(w.complete(ms(6000)), Verdict::Wait);
    w.permitted(number, ms(6000));
    assert_eq!(w.complete(ms(6000)), Verdict::Wait);
}

/// checks G15: nothing up to half the window, then more and more, and what goes out is what comes in at five eighths.
#[test]
fn the_throttle_rises_smoothly() {
    let delay_at = |age: u64| {
        let mut t = Throttle::new(ms(2000));
        (0..20).for_each(|i| t.acknowledged(ms(100 * i), 100_000));
        t.delay(ms(1900), ms(age), age * 1000, 100_000)
    };
    assert_eq!((delay_at(0), delay_at(1000)), (ms(0), ms(0)));
    let curve: Vec<Duration> = (1000..2100).step_by(10).map(delay_at).collect();
    assert!(curve.windows(2).all(|w| w[0] <= w[1]));
    assert!(curve[1] < ms(3), "{:?}", curve[1]);
    let jump = curve.windows(2).map(|w| w[1] - w[0]).max().unwrap();
    assert!(jump <= ms(300), "a wall of {jump:?}");
    let even = delay_at(1250).as_secs_f64();
    assert!((even - 0.1).abs() < 0.01, "{even} s for 100 kB at 1 MB/s");
}

/// A link of 1 MB/s, ten writers who want 50 and a window of two seconds: at the wall for less than a hundredth of the time, and the
/// link is never idle (checks G14, G15).
#[test]
fn a_slow_link_rarely_meets_the_wall() {
    let mut w = window(AtWindow::Stall, false);
    let (mut due, mut written, mut sent, mut worst) = ([ms(0); 10], 0u64, 0u64, ms(0));
    let mut ends: Vec<u64> = vec![];
    for t in 0..60_000u64 {
        let now = ms(t);
        for d in due.iter_mut().filter(|d| **d <= now) {
            match w.admit(5000, now) {
                Verdict::Go => *d = now + ms(1),
                Verdict::Delay(by) => *d = now + by,
                _ => {
                    *d = now + ms(1);
                    continue;
                }
            }
            written += 5000;
            w.accepted(TxnNo(ends.len() as u64 + 1), now, 5000, now);
        }
        if t % 200 == 0 {
            ends.push(written);
        }
        sent = (sent + 1000).min(written);
        let acked = ends.partition_point(|end| *end <= sent) as u64;
        w.acked(A, TxnNo(acked), now);
        if let (State::Protected, Exposure::Known(e)) = (w.state(), w.exposure()) {
            worst = worst.max(e);
        }
    }
    assert!(worst <= ms(2000), "{worst:?}");
    let stalled = w.counters().stalled;
    assert!(stalled <= ms(600), "{stalled:?} of a minute at the wall");
    assert!(sent > 55_000_000, "the link was idle: {sent}");
}

#[test]
fn a_diverged_replica_protects_nothing() {
    let mut w = window(AtWindow::Degrade, false);
    w.diverged(A, ms(1));
    assert_eq!((w.state(), w.replicas()[0].state), (State::Lagging, State::Diverged));
    w.set_fenced(true, ms(2));
    assert_eq!((w.complete(ms(2)), w.admit(1, ms(2))), (Verdict::Fenced, Verdict::Fenced));
}

/// A replica lost its store, and the VE was not written: it stayed protected by an acknowledgement of what was nowhere else any more (checks G14).
#[test]
fn a_replica_that_has_nothing_protects_nothing() {
    let mut w = window(AtWindow::Degrade, false);
    w.accepted(TxnNo(1), ms(0), 10, ms(0));
    w.acked(A, TxnNo(1), ms(1));
    assert_eq!((w.state(), w.exposure()), (State::Protected, Exposure::Known(ms(0))));
    w.has_nothing(A, ms(2));
    assert_eq!((w.state(), w.exposure(), w.replicas()[0].acked), (State::Lagging, Exposure::Unknown, None));
    w.acked(A, TxnNo(1), ms(3));
    assert_eq!((w.state(), w.exposure()), (State::Protected, Exposure::Known(ms(0))));
}

/// A replica whose store was set back to yesterday's greeted with what it had then, and the VE stayed protected by what it had acknowledged (checks G14).
#[test]
fn a_replica_that_was_set_back_protects_nothing() {
    let mut w = window(AtWindow::Degrade, false);
    for txn in 1..=5 {
        w.accepted(TxnNo(txn), ms(0), 10, ms(0));
    }
    w.acked(A, TxnNo(5), ms(1));
    w.acked(A, TxnNo(4), ms(1));
    assert_eq!((w.state(), w.replicas()[0].acked), (State::Protected, Some(TxnNo(5))), "a late word changes nothing");
    w.welcomed(A, TxnNo(2), ms(2));
    assert_eq!((w.state(), w.exposure(), w.replicas()[0].acked), (State::Lagging, Exposure::Unknown, Some(TxnNo(2))));
    w.acked(A, TxnNo(5), ms(3));
    assert_eq!((w.state(), w.exposure()), (State::Protected, Exposure::Known(ms(0))));
}
