use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::RwLock;

use super::*;

/// What a test tells a thread to do while it serves a request.
enum Job {
    Nothing,
    /// Waits as for a disk until the other end goes.
    Wait(Receiver<()>),
    /// The same, and tells nobody.
    Stand(Receiver<()>),
}

/// A session: its threads take jobs from one queue, as from a device.
struct Session {
    readers: Arc<Readers>,
    jobs: Sender<Job>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

fn session(watch: &Arc<Watch>, threads: usize) -> Session {
    let readers = Readers::new(threads, watch, None);
    let (jobs, queue) = channel::<Job>();
    let queue = Arc::new(Mutex::new(queue));
    let gate = Arc::new(RwLock::new(()));
    let one = |_| {
        let (readers, queue, gate) = (readers.clone(), queue.clone(), gate.clone());
        std::thread::spawn(move || {
            loop {
                // Dropped before the job is done: another thread may take the next one.
                let job = { queue.lock().recv() };
                let Ok(job) = job else { return };
                let _serving = readers.serve(gate.read(), true);
                match job {
                    Job::Nothing => {}
                    Job::Wait(until) => waiting::wait(|| until.recv().unwrap_or(())),
                    Job::Stand(until) => until.recv().unwrap_or(()),
                }
            }
        })
    };
    Session { threads: (0..threads).map(one).collect(), readers, jobs }
}

impl Session {
    fn parked(&self) -> usize {
        let inner = self.readers.inner.lock();
        inner.parked - inner.called
    }

    /// Until so many are parked, with requests to serve meanwhile.
    fn settle(&self, parked: usize) {
        while self.parked() != parked {
            self.jobs.send(Job::Nothing).unwrap();
            std::thread::yield_now();
        }
    }

    fn end(self) {
        drop(self.jobs);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn one_reads_and_the_others_come_when_it_waits() {
    let watch = Arc::new(Watch::default());
    let session = session(&watch, 3);
    session.settle(2);
    let (first, wait) = channel();
    session.jobs.send(Job::Wait(wait)).unwrap();
    while session.parked() != 1 {
        std::thread::yield_now();
    }
    let (second, wait) = channel();
    session.jobs.send(Job::Wait(wait)).unwrap();
    while session.parked() != 0 {
        std::thread::yield_now();
    }
    // The third one serves.
    let done = session.readers.done.load(Ordering::Relaxed);
    session.jobs.send(Job::Nothing).unwrap();
    while session.readers.done.load(Ordering::Relaxed) == done {
        std::thread::yield_now();
    }
    drop((first, second));
    session.settle(2);
    assert_eq!(session.readers.free.load(Ordering::Relaxed), 1);
    session.end();
}

/// Nobody would read again until the one that stands is done.
#[test]
fn the_watch_lets_another_one_go_when_the_reader_stands() {
    let watch = Watch::start(false).unwrap();
    let session = session(&watch, 2);
    session.settle(1);
    // Once with the watch awake, and once after it fell asleep.
    for _ in 0..2 {
        let (first, wait) = channel();
        session.jobs.send(Job::Stand(wait)).unwrap();
        while session.parked() != 0 {
            std::thread::yield_now();
        }
        let done = session.readers.done.load(Ordering::Relaxed);
        session.jobs.send(Job::Nothing).unwrap();
        while session.readers.done.load(Ordering::Relaxed) == done {
            std::thread::yield_now();
        }
        drop(first);
        session.settle(1);
        while !watch.asleep.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }
    session.end();
    watch.end();
}

/// A session ends when its readers do; one that is parked reads nothing and has to be told.
#[test]
fn the_end_of_the_reader_is_the_end_of_all() {
    let watch = Arc::new(Watch::default());
    let session = session(&watch, 2);
    session.settle(1);
    let readers = Arc::downgrade(&session.readers);
    session.end();
    assert!(readers.upgrade().is_none(), "a thread kept its session");
    watch.look();
    assert!(watch.list.lock().is_empty());
}

/// Before every thread is known nobody parks: the end of one that is not would not be noticed.
#[test]
fn nobody_parks_while_another_is_not_known() {
    let watch = Arc::new(Watch::default());
    let readers = Readers::new(2, &watch, None);
    let gate = RwLock::new(());
    for _ in 0..3 {
        drop(readers.serve(gate.read(), true));
    }
    assert_eq!((readers.inner.lock().known, readers.free.load(Ordering::Relaxed)), (1, 2));
}

/// A message of thousands of forgotten inodes took 60 µs for every second of them: after each the device was looked at for the next request, which the
/// thread could not read before it was done with the message.
#[test]
fn of_a_message_of_forgotten_inodes_one_is_lingered_for() {
    let watch = Arc::new(Watch::default());
    let readers = Readers::new(2, &watch, None);
    let gate = RwLock::new(());
    let lingers = |message| readers.forget(gate.read(), message).lingers;
    assert_eq!([4, 4, 4, 6, 8, 8].map(lingers), [true, false, false, true, true, false]);
}
