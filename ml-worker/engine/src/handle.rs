//! The way to the engine, and how busy it is.
//!
//! Admission is decided here, before a request costs anything: at most `limit` are in flight, and whoever comes beyond
//! is told when to come again, from how fast requests were finished lately. A tenant may have at most [`SHARE`] times as
//! many in flight as there are places left, so that there is always one for the next tenant.

use crate::cache::prefix::Tenant;
use crate::request::{Embed, EngineError, Generate, Score};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many times the places that are left a tenant may have: fifteen of sixteen if it is alone.
const SHARE: usize = 15;
/// Longest wait that a refused client is told, in seconds.
const LONGEST_RETRY_S: f64 = 60.0;

pub(crate) enum Command {
    /// Choices of one prompt.
    Generate(Vec<(Ticket, Generate)>),
    Score(Ticket, Score),
    Embed(Ticket, Embed),
}

/// How fast requests are finished while there are any.
#[derive(Debug, Default)]
struct Pace {
    // When the last one was finished, or the first came after none was in flight.
    since: Option<Instant>,
    // Moving average of the time between two ends, in seconds.
    interval_s: Option<f64>,
}

impl Pace {
    fn busy(&mut self, now: Instant) {
        self.since = Some(now);
    }

    fn finished(&mut self, now: Instant) {
        if let Some(since) = self.since.replace(now) {
            let interval = now.saturating_duration_since(since).as_secs_f64();
            self.interval_s = Some(self.interval_s.map_or(interval, |mean| mean + (interval - mean) / 16.0));
        }
    }

    /// When an eighth of `limit` places should be free: one place alone would be taken before everyone who was
    /// refused comes back.
    fn retry_after_s(&self, limit: usize) -> u32 {
        let places = limit.div_ceil(8) as f64;
        (self.interval_s.unwrap_or(0.0) * places).ceil().clamp(1.0, LONGEST_RETRY_S) as u32
    }
}

/// How busy the engine is, readable from any thread.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicUsize,
    // By tenant; those who have none are not in it. Changed before and after `in_flight`, under this lock.
    held: Mutex<BTreeMap<Tenant, usize>>,
    stopped: AtomicBool,
    pace: Mutex<Pace>,
    idle_lock: Mutex<()>,
    idle: Condvar,
}

impl Load {
    /// Requests accepted and not finished. While this is not zero, background work yields.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Whether the device thread has ended, by shutdown or by a fault.
    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Blocks until no request is in flight, or `patience` is over. Background work calls it between its steps.
    pub fn wait_idle_for(&self, patience: Duration) {
        let guard = self.idle_lock.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.idle.wait_timeout_while(guard, patience, |()| self.in_flight() > 0));
    }

    /// Blocks until no request is in flight.
    pub fn wait_idle(&self) {
        let mut guard = self.idle_lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.in_flight() > 0 {
            guard = self.idle.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<Tenant, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, tenant: Tenant, count: usize, limit: usize) -> Result<(), EngineError> {
        if count > limit {
            return Err(EngineError::Params(format!("this engine takes at most {limit} answers at once")));
        }
        let mut held = self.held();
        let own = held.get(&tenant).copied().unwrap_or(0);
        let in_flight = self.in_flight();
        let free = limit.saturating_sub(in_flight);
        if count > free || own + count > SHARE.saturating_mul(free) {
            metrics::counter!("pacer_engine_requests_refused_total").increment(1);
            let retry_after_s = self.pace().retry_after_s(limit);
            return Err(match count > free {
                true => EngineError::Busy { in_flight, retry_after_s },
                false => EngineError::Share { held: own, retry_after_s },
            });
        }
        held.insert(tenant, own + count);
        if self.in_flight.fetch_add(count, Ordering::SeqCst) == 0 {
            self.pace().busy(Instant::now());
        }
        Ok(())
    }

    fn leave(&self, tenant: Tenant) {
        self.pace().finished(Instant::now());
        let mut held = self.held();
        if let Some(own) = held.get_mut(&tenant) {
            *own -= 1;
            if *own == 0 {
                held.remove(&tenant);
            }
        }
        let last = self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1;
        drop(held);
        if last {
            // Taking the lock means a waiter either sees zero or is already waiting to be woken.
            let _guard = self.idle_lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.idle.notify_all();
        }
    }
}

/// One accepted request; counts as in flight until dropped.
pub(crate) struct Ticket {
    load: Arc<Load>,
    tenant: Tenant,
    pub(crate) arrived: Instant,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.load.leave(self.tenant);
    }
}

/// Says that the device thread has ended, even if it ends by a panic.
pub(crate) struct Alive(pub(crate) Arc<Load>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::SeqCst);
    }
}

/// The way to the engine, cheap to clone. The engine stops when every handle is gone and its work is done.
#[derive(Clone)]
pub struct EngineHandle {
    commands: Sender<Command>,
    load: Arc<Load>,
    limit: usize,
}

impl EngineHandle {
    /// A handle that admits `limit` requests at once, and where its commands come out.
    pub(crate) fn new(limit: usize) -> (Self, Receiver<Command>) {
        let (commands, receiver) = channel();
        (Self { commands, load: Arc::default(), limit }, receiver)
    }

    /// Asks for an answer. Refused at once if the queue is full.
    pub fn generate(&self, request: Generate) -> Result<(), EngineError> {
        self.generate_all(vec![request])
    }

    /// Asks for several answers of one tenant, all or none. Neighbours with the same prompt share its computation and its
    /// blocks.
    pub fn generate_all(&self, requests: Vec<Generate>) -> Result<(), EngineError> {
        let tenant = requests.first().map(|request| request.tenant).unwrap_or_default();
        let mut tickets = self.tickets(tenant, requests.len())?.into_iter();
        let mut group: Vec<(Ticket, Generate)> = Vec::new();
        for request in requests {
            if group.first().is_some_and(|(_, first)| !request.continues(first)) {
                self.send(Command::Generate(std::mem::take(&mut group)))?;
            }
            group.extend(tickets.next().map(|ticket| (ticket, request)));
        }
        self.send(Command::Generate(group))
    }

    /// Asks for the logits of a text. Refused at once if the queue is full.
    pub fn score(&self, request: Score) -> Result<(), EngineError> {
        let ticket = self.tickets(request.tenant, 1)?.pop().ok_or(EngineError::Stopped)?;
        self.send(Command::Score(ticket, request))
    }

    /// Asks for the vector of a text. Refused at once if the queue is full.
    pub fn embed(&self, request: Embed) -> Result<(), EngineError> {
        let ticket = self.tickets(request.tenant, 1)?.pop().ok_or(EngineError::Stopped)?;
        self.send(Command::Embed(ticket, request))
    }

    /// How busy the engine is.
    pub fn load(&self) -> Arc<Load> {
        self.load.clone()
    }

    fn tickets(&self, tenant: Tenant, count: usize) -> Result<Vec<Ticket>, EngineError> {
        self.load.enter(tenant, count, self.limit)?;
        let arrived = Instant::now();
        Ok((0..count).map(|_| Ticket { load: self.load.clone(), tenant, arrived }).collect())
    }

    fn send(&self, command: Command) -> Result<(), EngineError> {
        self.commands.send(command).map_err(|_| EngineError::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_should_be_left_for_others_when_one_tenant_asks_for_all() {
        let [a, b] = [b"a", b"b"].map(|name| Tenant::of(name));
        let load = Load::default();
        let taken = |tenant| (0..).take_while(|_| load.enter(tenant, 1, 320).is_ok()).count();
        assert_eq!(taken(a), 300);
        assert!(matches!(load.enter(a, 1, 320), Err(EngineError::Share { held: 300, .. })));
        assert_eq!(taken(b), 19);
        load.leave(b);
        load.leave(b);
        assert!(load.enter(a, 1, 320).is_err() && load.enter(b, 1, 320).is_ok(), "a has more than its share still");
        (0..280).for_each(|_| load.leave(a));
        assert_eq!((load.in_flight(), taken(b)), (38, 264));
        (0..20).for_each(|_| load.leave(a));
        (0..282).for_each(|_| load.leave(b));
        assert_eq!((load.in_flight(), load.held().len()), (0, 0));
        // So few places are not kept for somebody who may never come.
        assert!(load.enter(a, 4, 4).is_ok() && load.enter(b, 1, 4).is_err());
    }

    #[test]
    fn retry_should_follow_the_pace_of_finished_requests() {
        let mut pace = Pace::default();
        assert_eq!(pace.retry_after_s(64), 1, "nothing is known yet");
        let start = Instant::now();
        pace.busy(start);
        (1..=50).for_each(|n| pace.finished(start + Duration::from_secs(2 * n)));
        assert_eq!(pace.retry_after_s(64), 16);
        // An idle hour is no slow request.
        pace.busy(start + Duration::from_secs(3_600));
        pace.finished(start + Duration::from_secs(3_602));
        assert_eq!(pace.retry_after_s(64), 16);
        assert_eq!(pace.retry_after_s(100_000), 60);
    }
}
