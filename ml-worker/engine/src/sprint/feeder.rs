//! A device's second thread: generates the next inputs and judges the last outputs while the device works.

use std::{
    sync::{
        mpsc::{channel, Receiver, Sender},
        Arc,
    },
    thread::JoinHandle,
};

use super::{
    edges::Edges,
    error::SprintError,
    shared::{Allotted, Shared, RACE_PATIENCE},
};

/// Nonces that are generated or judged between two looks for user requests: two milliseconds.
const SLICE: usize = 64;

/// Inputs on their way from the feeder.
pub(super) struct Prepared {
    pub allotted: Allotted,
    pub rows: Receiver<Vec<i8>>,
}

enum Order {
    Prepare { edges: Arc<Edges>, nonces: Vec<u64>, batch: usize, reply: Sender<Vec<i8>> },
    Judge { edges: Arc<Edges>, allotted: Allotted, outputs: Vec<i8> },
}

/// The thread and the way to it. Dropping it ends the thread after what it was told.
pub(super) struct Feeder {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Feeder {
    pub fn new(shared: Arc<Shared>) -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let thread = std::thread::Builder::new().name("sprint-feeder".into()).spawn(move || work(&shared, &inbox))?;
        Ok(Feeder { orders: Some(orders), thread: Some(thread) })
    }

    /// Whether the thread has ended: it panicked.
    pub fn is_gone(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// What is in an order that cannot be sent goes back when it is dropped.
    fn send(&self, order: Order) -> Result<(), SprintError> {
        let gone = || SprintError::Device("the thread that feeds this device panicked".into());
        self.orders.as_ref().and_then(|orders| orders.send(order).ok()).ok_or_else(gone)
    }

    /// Has the inputs of a range generated.
    ///
    /// # Errors
    /// The feeder panicked.
    pub fn prepare(&self, edges: Arc<Edges>, allotted: Allotted, batch: usize) -> Result<Prepared, SprintError> {
        let (reply, rows) = channel();
        self.send(Order::Prepare { edges, nonces: allotted.range.clone().collect(), batch, reply })?;
        Ok(Prepared { allotted, rows })
    }

    /// Has the outputs of a range judged, and booked.
    ///
    /// # Errors
    /// The feeder panicked.
    pub fn judge(&self, edges: Arc<Edges>, allotted: Allotted, outputs: Vec<i8>) -> Result<(), SprintError> {
        self.send(Order::Judge { edges, allotted, outputs })
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.orders = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the Sprint's feeder panicked");
        }
    }
}

fn work(shared: &Shared, orders: &Receiver<Order>) {
    for order in orders {
        match order {
            // Whoever does not wait for it any more has another race.
            Order::Prepare { edges, nonces, batch, reply } => drop(reply.send(edges.inputs(&nonces, batch))),
            Order::Judge { edges, allotted, outputs } => {
                let nonces: Vec<u64> = allotted.range.clone().collect();
                let width = outputs.len() / nonces.len().max(1);
                let mut hits = Vec::new();
                for (nonces, outputs) in nonces.chunks(SLICE).zip(outputs.chunks(SLICE * width.max(1))) {
                    shared.yield_to_requests(RACE_PATIENCE);
                    let outcomes = edges.outcomes(nonces, outputs);
                    hits.extend(outcomes.iter().filter(|outcome| outcome.appropriate).map(|outcome| outcome.nonce));
                }
                allotted.book(hits);
                // Last, so that who is told of every step sees what the last one of a race came to.
                shared.yield_to_requests(RACE_PATIENCE);
            }
        }
    }
}
