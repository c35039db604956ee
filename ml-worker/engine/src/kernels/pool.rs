//! A few threads that take tasks of one region after another.
//!
//! A decode step is some hundred regions of ten microseconds and more. A worker that has just finished one therefore
//! looks out for the next for a moment ([`LOOKS`]) before it sleeps: handing over costs a fraction of a microsecond then,
//! and idle engines cost nothing. Nobody waits for a worker that sleeps or was never scheduled: a region is *closed*
//! once its tasks are gone, and only workers that joined before that are waited for. On a machine shared with a node
//! and an agent that is the difference between losing a task's time and losing a time slice.
//!
//! libtorch has threads of its own (OpenMP's), which sleep while these work and the other way round.
//!
//! Invariants:
//! 1. the job's fields are written only while the region is closed and nobody is active;
//! 2. they are read only by workers that joined an open region, which counts them as active.

use std::cell::UnsafeCell;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, OnceLock, TryLockError};
use std::thread::Thread;

/// How often a worker looks for the next region before it sleeps: some 30 microseconds.
const LOOKS: usize = 1000;
/// The region's number stands above these bits of [`Shared::state`].
const NUMBER: u32 = 32;
/// Set once no further worker may join.
const CLOSED: u64 = 1 << 31;
/// Workers that joined.
const ACTIVE: u64 = CLOSED - 1;

type Task<'a> = dyn Fn(usize) + Sync + 'a;

struct Shared {
    /// Number of the region, [`CLOSED`], count of active workers.
    state: AtomicU64,
    job: UnsafeCell<Option<&'static Task<'static>>>,
    tasks: AtomicUsize,
    next: AtomicUsize,
    failed: AtomicBool,
}

// SAFETY: `job` is guarded by `state` (invariants 1 and 2); the rest is atomic.
unsafe impl Sync for Shared {}
// SAFETY: as above; the reference inside is to a `Sync` closure.
unsafe impl Send for Shared {}

struct Worker {
    thread: Thread,
    asleep: Arc<AtomicBool>,
}

/// See the module's header.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

impl Shared {
    fn work(&self, task: &Task<'_>) {
        let tasks = self.tasks.load(Relaxed);
        loop {
            let index = self.next.fetch_add(1, Relaxed);
            if index >= tasks {
                return;
            }
            task(index);
        }
    }

    /// Joins the region `number` if it is still open.
    fn join(&self, number: u64) -> bool {
        let join = |state: u64| (state >> NUMBER == number && state & CLOSED == 0).then_some(state + 1);
        self.state.fetch_update(AcqRel, Acquire, join).is_ok()
    }

    fn serve(&self, asleep: &AtomicBool) {
        let mut last = self.state.load(Acquire) >> NUMBER;
        loop {
            let mut looks = 0;
            let number = loop {
                let number = self.state.load(SeqCst) >> NUMBER;
                if number != last {
                    break number;
                }
                looks += 1;
                if looks < LOOKS {
                    std::hint::spin_loop();
                    continue;
                }
                asleep.store(true, SeqCst);
                if self.state.load(SeqCst) >> NUMBER == last {
                    std::thread::park();
                }
                asleep.store(false, SeqCst);
            };
            last = number;
            if !self.join(number) {
                continue;
            }
            // SAFETY: joined, so the region's owner keeps the closure alive until this worker has left.
            if let Some(task) = unsafe { *self.job.get() } {
                if catch_unwind(AssertUnwindSafe(|| self.work(task))).is_err() {
                    self.failed.store(true, Relaxed);
                }
            }
            self.state.fetch_sub(1, AcqRel);
        }
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller of [`Pool::run`] being one of them. Its threads live as long as the
    /// process.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(CLOSED),
            job: UnsafeCell::new(None),
            tasks: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        });
        let mut workers = Vec::new();
        for _ in 1..threads {
            let (shared, asleep) = (shared.clone(), Arc::new(AtomicBool::new(false)));
            let flag = asleep.clone();
            let spawned = std::thread::Builder::new().name("kernels".into()).spawn(move || shared.serve(&flag));
            // Fewer threads compute the same.
            if let Ok(handle) = spawned {
                workers.push(Worker { thread: handle.thread().clone(), asleep });
            }
        }
        Self { shared, workers }
    }

    /// Threads that work, the caller among them.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` with `0..tasks`, each once, spread over the threads; returns when all are done.
    ///
    /// # Panics
    /// If a task does.
    pub fn run(&mut self, tasks: usize, task: &Task<'_>) {
        if self.workers.is_empty() || tasks < 2 {
            return (0..tasks).for_each(task);
        }
        let shared = &*self.shared;
        // SAFETY: the lifetime is only lengthened while this function waits for everyone who can see the reference; the
        // region before is closed and empty, so nobody reads the cell now.
        unsafe { *shared.job.get() = Some(std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task)) };
        shared.tasks.store(tasks, Relaxed);
        shared.next.store(0, Relaxed);
        let number = (shared.state.load(Relaxed) >> NUMBER).wrapping_add(1) & u64::from(u32::MAX);
        shared.state.store(number << NUMBER, SeqCst);
        for worker in self.workers.iter().take(tasks - 1) {
            if worker.asleep.load(SeqCst) {
                worker.thread.unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| shared.work(task)));
        shared.state.fetch_or(CLOSED, AcqRel);
        let mut looks = 0;
        while shared.state.load(Acquire) & ACTIVE != 0 {
            looks += 1;
            if looks % LOOKS == 0 {
                // Whoever is missing may need this very core.
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        let failed = shared.failed.swap(false, Relaxed);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!failed, "a task of a kernel panicked");
    }
}

/// The process's pool, as large as libtorch's when it is first used, and its size.
static POOL: OnceLock<(usize, Mutex<Pool>)> = OnceLock::new();

fn process_pool() -> &'static (usize, Mutex<Pool>) {
    POOL.get_or_init(|| {
        let pool = Pool::new(tch::get_num_threads().max(1) as usize);
        (pool.threads(), Mutex::new(pool))
    })
}

/// Calls `task` with `0..tasks` on the process's pool. If another thread is using that, the caller works alone: results
/// do not depend on who computes what.
pub fn run(tasks: usize, task: &Task<'_>) {
    match process_pool().1.try_lock() {
        Ok(mut pool) => pool.run(tasks, task),
        // A panic leaves the pool as good as new.
        Err(TryLockError::Poisoned(pool)) => pool.into_inner().run(tasks, task),
        Err(TryLockError::WouldBlock) => (0..tasks).for_each(task),
    }
}

/// Cuts `0..total` into tasks for the process's pool and returns their starts, with `total` behind the last: large ones
/// first, of at most `most`, then smaller and smaller ones, so that all threads end at about the same time.
pub fn shares(total: usize, most: usize) -> Vec<usize> {
    let threads = process_pool().0;
    let mut starts = vec![0];
    let mut start = 0;
    while start < total {
        start += ((total - start) / (2 * threads)).min(most).max(1);
        starts.push(start);
    }
    starts
}

/// Where tasks write to disjoint parts.
pub(crate) struct Shareable<T>(*mut T);

// SAFETY: only tasks that write to disjoint parts use it.
unsafe impl<T: Send> Send for Shareable<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shareable<T> {}

impl<T> Shareable<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// The same, from an address on.
    pub(crate) fn at(start: *mut T) -> Self {
        Self(start)
    }

    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}

/// Cuts `out` into pieces of `length` elements and calls `task` with the number of each and the piece itself.
pub fn run_chunks<T: Send>(out: &mut [T], length: usize, task: &(dyn Fn(usize, &mut [T]) + Sync)) {
    let total = out.len();
    if length == 0 || total == 0 {
        return;
    }
    let base = Shareable::new(out);
    run(total.div_ceil(length), &|index| {
        let start = index * length;
        // SAFETY: pieces of different numbers do not overlap, each number is given once, and all end within the slice.
        let piece = unsafe { std::slice::from_raw_parts_mut(base.get().add(start), length.min(total - start)) };
        task(index, piece);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn pool_should_do_every_task_once_when_regions_follow_each_other() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads);
            for round in 0..500 {
                let tasks = round % 7;
                let seen: Vec<_> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                pool.run(tasks, &|index| {
                    seen[index].fetch_add(1, Relaxed);
                });
                assert!(seen.iter().all(|count| count.load(Relaxed) == 1), "{threads} threads, round {round}");
            }
        }
    }

    #[test]
    fn pool_should_go_on_when_a_task_panicked() {
        let mut pool = Pool::new(3);
        for bad in 0..20 {
            let run = catch_unwind(AssertUnwindSafe(|| pool.run(20, &|index| assert_ne!(index, bad, "on purpose"))));
            assert!(run.is_err());
            let count = AtomicU32::new(0);
            pool.run(20, &|_| {
                count.fetch_add(1, Relaxed);
            });
            assert_eq!(count.load(Relaxed), 20);
        }
    }

    #[test]
    fn shares_should_cover_everything_and_shrink_towards_the_end() {
        for (total, most) in [(0, 5), (1, 5), (28, 100), (5000, 17), (9, 0)] {
            let starts = shares(total, most);
            assert_eq!((starts[0], starts[starts.len() - 1]), (0, total));
            let sizes: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(sizes.iter().all(|size| (1..=most.max(1)).contains(size)), "{sizes:?}");
            assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes.last().is_none_or(|last| *last == 1), "{sizes:?}");
        }
    }

    #[test]
    fn pieces_should_cover_a_slice_when_it_is_no_multiple_of_their_length() {
        for total in [0usize, 1, 7, 8, 23] {
            let mut out = vec![0usize; total];
            run_chunks(&mut out, 4, &|index, piece| piece.iter_mut().for_each(|value| *value += index + 1));
            assert!(out.iter().enumerate().all(|(at, value)| *value == at / 4 + 1), "{out:?}");
        }
    }
}
