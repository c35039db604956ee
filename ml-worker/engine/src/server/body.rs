//! Bodies of requests: read, bounded each and all together, parsed.

use super::access::{Caller, Deadline};
use super::error::ApiError;
use super::{Server, MAX_REQUEST_BYTES};
use axum::body::{BodyDataStream, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{header::CONTENT_LENGTH, StatusCode};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest time that a body may take to come.
pub const BODY_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of bodies that may be in memory, of `/verify` apart.
const ROOM_BYTES: usize = 256 << 20;
/// By how much more than it needs the memory of a body grows at most.
const GROWTH_BYTES: usize = 1 << 20;
/// What is still read of a body that is refused, and for how long.
const DISCARDED_BYTES: usize = 4 * MAX_REQUEST_BYTES;
const DISCARDING: Duration = Duration::from_secs(5);

/// Bytes of each body for which there is always room: long ones do not keep out the usual ones.
const FREE_BYTES: usize = 64 << 10;

/// Room for the bodies of all requests that are being read or wait. A byte takes its place when it comes, so that nobody
/// can keep places for what is only announced.
#[derive(Clone, Debug)]
pub struct BodyRoom {
    places: Arc<Semaphore>,
    free: usize,
}

impl BodyRoom {
    /// Room for so many bytes beyond the first `free` ones of each body.
    pub fn new(bytes: usize, free: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(bytes)), free }
    }

    /// Reads a body of at most `limit` bytes, of which `announced` are expected. It has its room until its last copy is
    /// dropped.
    ///
    /// # Errors
    /// 413 if it is longer, 429 if there is no room for all of it.
    async fn read(&self, body: axum::body::Body, announced: usize, limit: usize) -> Result<Bytes, ApiError> {
        let mut bytes = Vec::new();
        let mut room = self.grow(&mut bytes, 0, announced.min(self.free))?;
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
            let grown = match bytes.len() + piece.len() > limit {
                true => Err(ApiError::too_large(limit)),
                false => self.grow(&mut bytes, piece.len(), announced),
            };
            match grown {
                Ok(more) => room.merge(more),
                Err(error) => {
                    drop((bytes, room));
                    discard(pieces).await;
                    return Err(error);
                }
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Bytes::from_owner(Held { bytes: bytes.into(), _room: room }))
    }

    /// Places and memory for `more` bytes behind `bytes`, of `expected` in all.
    fn grow(&self, bytes: &mut Vec<u8>, more: usize, expected: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let busy = || ApiError::busy("the bodies of other requests take all memory for them").unread();
        let (before, now) = (bytes.len(), bytes.len() + more);
        let due = now.saturating_sub(self.free) - before.saturating_sub(self.free);
        let due = u32::try_from(due).map_err(|_| busy())?;
        let room = self.places.clone().try_acquire_many_owned(due).map_err(|_| busy())?;
        if bytes.capacity() < now.max(1) {
            // Left alone, it would take up to twice what it needs.
            let size = expected.min(now + GROWTH_BYTES).max(now);
            bytes.try_reserve_exact(size - before).map_err(|_| busy())?;
        }
        Ok(room)
    }
}

/// Reads on for a moment and keeps nothing: a client that still writes would see its connection break, not why.
async fn discard(mut pieces: BodyDataStream) {
    let mut left = DISCARDED_BYTES;
    let reading = async {
        while let Some(Ok(piece)) = pieces.next().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return;
            }
        }
    };
    // Whoever is slower than this has to live with it.
    let _ = tokio::time::timeout(DISCARDING, reading).await;
}

impl Default for BodyRoom {
    fn default() -> Self {
        Self::new(ROOM_BYTES, FREE_BYTES)
    }
}

struct Held {
    bytes: Box<[u8]>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body of a request to the OpenAI API.
pub struct Body(pub Bytes);

impl FromRequest<Arc<Server>> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, ApiError> {
        let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let announced: usize = announced.unwrap_or(0);
        if announced > MAX_REQUEST_BYTES {
            discard(request.into_body().into_data_stream()).await;
            return Err(ApiError::too_large(MAX_REQUEST_BYTES));
        }
        let deadline = request.extensions().get().map_or(Deadline::default(), |caller: &Caller| caller.deadline);
        let reading = server.workers.body_room.read(request.into_body(), announced, MAX_REQUEST_BYTES);
        let read = deadline.limit(tokio::time::timeout(BODY_PATIENCE, reading)).await.map_err(ApiError::unread)?;
        Ok(Self(read.map_err(|_| ApiError::slow_body())??))
    }
}

/// A body that axum read, or the error object for one that is too large or broke off.
pub fn body_bytes(body: Result<Bytes, BytesRejection>, limit: usize) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(limit),
        _ => ApiError::bad_request(rejection.body_text()),
    })
}

/// Reads JSON; the error names the field.
pub fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let message = format!("the body is not as expected: {}", error.inner());
        match field.as_str() {
            "." | "?" => ApiError::bad_request(message),
            field => ApiError::field(field, message),
        }
    })?;
    json.end().map_err(|error| ApiError::bad_request(format!("the body is not as expected: {error}")))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// A body whose length nobody announces.
    fn body(pieces: &[usize]) -> axum::body::Body {
        let pieces: Vec<_> = pieces.iter().map(|bytes| Ok::<_, Infallible>(vec![b'x'; *bytes])).collect();
        axum::body::Body::from_stream(futures::stream::iter(pieces))
    }

    #[tokio::test]
    async fn body_should_be_refused_when_it_or_all_together_are_too_long() {
        let room = BodyRoom::new(10, 0);
        let status = |read: Result<Bytes, ApiError>| read.map(|_| ()).map_err(|error| error.status.as_u16());
        assert_eq!(status(room.read(body(&[3, 3]), 0, 5).await), Err(413));
        assert_eq!(status(room.read(body(&[6, 6]), 0, 20).await), Err(429));
        assert_eq!(room.places.available_permits(), 10, "what was refused gives its room back");
        let first = room.read(body(&[4, 3]), 0, 10).await.unwrap();
        let copy = first.clone();
        assert_eq!((&first[..], room.places.available_permits()), (&b"xxxxxxx"[..], 3));
        drop(first);
        assert_eq!(status(room.read(body(&[4]), 0, 10).await), Err(429));
        assert_eq!(status(room.read(body(&[3]), 0, 10).await), Ok(()));
        drop(copy);
        assert_eq!(status(room.read(body(&[10]), 0, 10).await), Ok(()));
        assert_eq!(status(room.read(body(&[]), 0, 10).await), Ok(()));

        let room = BodyRoom::new(10, 5);
        let long = room.read(body(&[3, 3, 9]), 15, 20).await.unwrap();
        assert_eq!((long.len(), room.places.available_permits()), (15, 0));
        assert_eq!(status(room.read(body(&[5]), 5, 20).await), Ok(()), "the usual ones always have room");
        assert_eq!(status(room.read(body(&[6]), 6, 20).await), Err(429));
    }
}
