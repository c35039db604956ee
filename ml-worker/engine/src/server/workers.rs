//! Threads beside the server's own, for what takes a while: templates, tokens of long texts, grammars.
//!
//! Work that anybody can ask for is bounded before it begins: a pool works on so many requests at once, lets so many more
//! wait, and refuses the rest (429). A request waits until its own deadline, or for [`PATIENCE`]. Work that outlasts its
//! request cannot be stopped, so it keeps its place until it ends.
//!
//! Who waits in a pool has its body in memory, in a room that all share ([`BodyRoom`]). Bodies of `/verify` are large, so
//! each takes a place in a pool of its own before it is read ([`Pool::enter`]), and has it until the body is dealt with.

use super::access::Deadline;
use super::body::BodyRoom;
use super::error::ApiError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that may wait for a pool.
const WAITING: usize = 1024;
/// Bodies of `/verify` in memory at once.
const VERIFY_BODIES: usize = 8;
/// Longest wait for a pool.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bounded room for blocking work.
#[derive(Debug)]
pub struct Pool {
    // Whoever works or waits.
    room: Arc<Semaphore>,
    // Whoever works.
    slots: Arc<Semaphore>,
}

/// A place in a pool; somebody else's once it is dropped.
#[derive(Debug)]
pub struct Place {
    _room: OwnedSemaphorePermit,
    _slot: OwnedSemaphorePermit,
}

impl Pool {
    /// Works on `at_once` requests, and lets `waiting` more wait.
    pub fn new(at_once: usize, waiting: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(at_once + waiting)), slots: Arc::new(Semaphore::new(at_once)) }
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// 429 if there is none in time.
    pub async fn enter(&self, deadline: Deadline) -> Result<Place, ApiError> {
        let busy = || ApiError::busy("too many requests wait to be made ready; try again");
        let room = self.room.clone().try_acquire_owned().map_err(|_| busy())?;
        match tokio::time::timeout(PATIENCE, deadline.limit(self.slots.clone().acquire_owned())).await {
            Ok(Ok(Ok(slot))) => Ok(Place { _room: room, _slot: slot }),
            _ => Err(busy()),
        }
    }

    /// Does the work as soon as there is a place for it.
    ///
    /// # Errors
    /// 429 if there is none in time, 504 if the work is not done in time, and the work's own.
    pub async fn run<T: Send + 'static>(
        &self,
        deadline: Deadline,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = self.enter(deadline).await?;
        let task = tokio::task::spawn_blocking(move || {
            let _held = place;
            work()
        });
        deadline.limit(task).await?.map_err(|error| ApiError::internal(error.to_string()))?
    }
}

/// A server's pools.
#[derive(Debug)]
pub struct Workers {
    /// Checks requests and makes tokens of them.
    pub requests: Pool,
    /// Compiles grammars, one at a time; apart, so that requests without one need not wait for them.
    pub grammars: Pool,
    /// Does nothing: holds the places for bodies of `/verify`. Those that wait for one are not read yet.
    pub verify_bodies: Pool,
    /// Room for the bodies of all other requests.
    pub body_room: BodyRoom,
}

impl Default for Workers {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            requests: Pool::new(cores.max(2), WAITING),
            grammars: Pool::new(1, WAITING),
            verify_bodies: Pool::new(VERIFY_BODIES, WAITING),
            body_room: BodyRoom::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(20))
    }

    #[tokio::test]
    async fn place_should_be_free_again_when_it_is_dropped() {
        let pool = Pool::new(1, 0);
        let place = pool.enter(Deadline::default()).await.unwrap();
        assert_eq!(pool.enter(Deadline::default()).await.unwrap_err().status, 429);
        drop(place);
        assert!(pool.enter(Deadline::default()).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pool_should_refuse_when_it_is_full_or_the_deadline_is_over() {
        let pool = Arc::new(Pool::new(1, 1));
        let (begin, begun) = channel();
        let (end, ended) = channel::<()>();
        // Takes longer than its request has, and is not over then.
        let late = pool.run(soon(), move || {
            begin.send(()).unwrap();
            let _ = ended.recv();
            Ok(())
        });
        assert_eq!(late.await.unwrap_err().status, 504);
        begun.recv().unwrap();
        let waited = pool.run(soon(), || Ok(())).await.unwrap_err();
        assert_eq!((waited.status.as_u16(), waited.code), (429, Some("queue_full")));
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(Deadline::default(), || Ok(7)).await }
        });
        while pool.room.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(Deadline::default(), || Ok(())).await.unwrap_err().status, 429);
        drop(end);
        assert_eq!(waiting.await.unwrap(), Ok(7));
    }
}
