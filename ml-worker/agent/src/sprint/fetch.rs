//! Fetches the list behind a Host's commitment.
//!
//! # Words
//! - *proven* list: it hashes to the committed root, so every position of it is what the Host committed to.
//!
//! Invariants
//! 1. A list that is not proven says nothing about single positions: it may be bait.
//! 2. What a Host serves, and how slowly, is bounded: a page by its bytes, a list by its count and a time limit, all
//!    lists together by the room there is.

use std::{
	sync::Arc,
	time::{Duration, Instant},
};

use pacer_sprint::TreeError;
use pacer_types::{views::CommitView, EpochIndex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{peers::Peers, sprint::serve::PAGE, wire::read_limited};

/// Longest list that is fetched: 128 MiB.
const MAX_LIST: u32 = 1 << 24;
/// Nonces of lists that are held at a time, 256 MiB: one Host alone cannot fill it.
const MAX_HELD: usize = 2 * MAX_LIST as usize;
/// How long a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many nonces of other Hosts' lists are held in memory, over all lists.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Room {
	fn new(nonces: usize) -> Self {
		Self(Arc::new(Semaphore::new(nonces)))
	}
}

impl Default for Room {
	fn default() -> Self {
		Self::new(MAX_HELD)
	}
}

/// A list, and the room it takes.
#[derive(Debug)]
pub struct List {
	nonces: Vec<u64>,
	_held: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for List {
	type Target = [u64];

	fn deref(&self) -> &[u64] {
		&self.nonces
	}
}

/// What came of asking for a list.
#[derive(Debug)]
pub enum Listing {
	/// It hashes to the committed root.
	Proven(List),
	/// A list came that is not the committed one.
	Another(Fault),
	/// No whole list came, and why.
	Silent(String),
	/// It came, but other lists leave no room for it now. Nothing to hold against its Host.
	NoRoom,
}

/// Why a list is not the committed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
	/// Its length.
	#[error("it serves {served} nonces and claims {claimed}")]
	Length {
		/// Nonces that came.
		served: usize,
		/// Nonces in the commitment.
		claimed: u32,
	},
	/// It has no range tree: its nonces are not strictly ascending.
	#[error("its list breaks the rules: {0}")]
	Order(TreeError),
	/// It hashes to something else.
	#[error("its list has another root than its commitment")]
	Root,
}

/// Fetches the list behind a commitment from the agent at `endpoint`, within `limit`, into `room`.
pub async fn fetch(
	peers: &Peers,
	endpoint: Option<&str>,
	epoch: EpochIndex,
	commit: &CommitView,
	limit: Duration,
	room: &Room,
) -> Listing {
	if commit.count > MAX_LIST {
		return Listing::Silent(format!("{} nonces are too many to fetch", commit.count));
	}
	let Some(endpoint) = endpoint else { return Listing::Silent("it has no usable address".into()) };
	let list = match pages(peers, endpoint, epoch, commit.count, limit, room).await {
		Ok(Some(list)) => list,
		Ok(None) => return Listing::NoRoom,
		Err(why) => return Listing::Silent(why),
	};
	if list.len() != commit.count as usize {
		return Listing::Another(Fault::Length { served: list.len(), claimed: commit.count });
	}
	let hashed = tokio::task::spawn_blocking(move || (pacer_sprint::tree::root_of(&list), list)).await;
	match hashed {
		Ok((Ok(root), list)) if root == commit.root.0 => Listing::Proven(list),
		Ok((Ok(_), _)) => Listing::Another(Fault::Root),
		Ok((Err(e), _)) => Listing::Another(Fault::Order(e)),
		Err(e) => Listing::Silent(format!("its list could not be hashed: {e}")),
	}
}

/// What the agent serves, `None` if there is no room for it. Room is taken as pages come, not as they are claimed: a
/// Host that claims much and serves slowly takes none from others. Who finds none gives up what it has, so of several
/// lists that do not fit together one is finished.
async fn pages(
	peers: &Peers,
	endpoint: &str,
	epoch: EpochIndex,
	count: u32,
	limit: Duration,
	room: &Room,
) -> Result<Option<List>, String> {
	let until = Instant::now() + limit;
	let (mut nonces, mut held): (Vec<u64>, Option<OwnedSemaphorePermit>) = Default::default();
	loop {
		let left = until.saturating_duration_since(Instant::now()).min(PAGE_TIMEOUT);
		if left.is_zero() {
			return Err("it serves too slowly".into());
		}
		let url = format!("{endpoint}/pacer/nonces?epoch={epoch}&from={}", nonces.len());
		let response = peers.get(&url)?.timeout(left).send().await.map_err(|e| e.to_string())?;
		// Also a redirect, which is not followed, is no page.
		if response.status() != reqwest::StatusCode::OK {
			return Err(format!("answered with status {}", response.status()));
		}
		let bytes = read_limited(response, 8 * PAGE).await?;
		let (words, rest) = bytes.as_chunks::<8>();
		if !rest.is_empty() {
			return Err("a page ends within a nonce".into());
		}
		let Ok(more) = room.0.clone().try_acquire_many_owned(words.len() as u32) else { return Ok(None) };
		match held.as_mut() {
			Some(held) => held.merge(more),
			None => held = Some(more),
		}
		nonces.extend(words.iter().map(|w| u64::from_le_bytes(*w)));
		// One more than claimed is enough to see that the claim is wrong.
		if words.is_empty() || nonces.len() >= count as usize {
			return Ok(Some(List { nonces, _held: held }));
		}
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::{peers::Reach, testing::serve_list};
	use axum::{body::Bytes, response::Redirect, routing::get, Router};
	use pacer_types::Hash;

	fn commit_to(nonces: &[u64]) -> CommitView {
		let root = Hash::from(pacer_sprint::tree::root_of(nonces).unwrap());
		CommitView { host: [2; 32].into(), count: nonces.len() as u32, root, struck: false }
	}

	/// What comes of asking for `commit` where `router` serves.
	async fn served_by(router: Router, commit: &CommitView, limit: Duration) -> Listing {
		let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
		let url = format!("http://{}", listener.local_addr().unwrap());
		tokio::spawn(async move { axum::serve(listener, router).await });
		fetch(&Peers::new(Reach::Anywhere).unwrap(), Some(&url), 5, commit, limit, &Room::default()).await
	}

	fn is_silent(listing: Listing, expected: &str) {
		let Listing::Silent(why) = listing else { panic!("{listing:?}") };
		assert!(why.contains(expected), "{why}");
	}

	#[tokio::test]
	async fn list_should_wait_for_room_and_be_had_when_another_is_dropped() {
		let (peers, room) = (Peers::new(Reach::Anywhere).unwrap(), Room::new(100));
		let nonces: Vec<u64> = (0..60).collect();
		let commit = commit_to(&nonces);
		let url = serve_list(nonces).await;
		let get = || fetch(&peers, Some(&url), 5, &commit, Duration::from_secs(10), &room);
		let first = get().await;
		assert!(matches!(&first, Listing::Proven(list) if list.len() == 60));
		assert!(matches!(get().await, Listing::NoRoom));
		assert_eq!(room.0.available_permits(), 40, "what did not fit was given back");
		drop(first);
		assert!(matches!(get().await, Listing::Proven(_)));
		assert_eq!(room.0.available_permits(), 100);
	}

	#[tokio::test]
	async fn list_should_not_be_asked_for_when_its_address_is_private() {
		let nonces: Vec<u64> = (0..60).collect();
		let (commit, url) = (commit_to(&nonces), serve_list(nonces).await);
		let get = async |reach| {
			let peers = Peers::new(reach).unwrap();
			fetch(&peers, Some(&url), 5, &commit, Duration::from_secs(10), &Room::default()).await
		};
		is_silent(get(Reach::Public).await, "no public address");
		assert!(matches!(get(Reach::Anywhere).await, Listing::Proven(_)));
	}

	#[tokio::test]
	async fn page_should_be_refused_when_it_is_too_large_or_elsewhere_or_never_comes() {
		let (commit, enough) = (commit_to(&[1, 2, 3]), Duration::from_secs(10));
		let path = "/pacer/nonces";
		let large = Router::new().route(path, get(|| async { Bytes::from(vec![0; 8 * PAGE + 8]) }));
		is_silent(served_by(large, &commit, enough).await, "more than");
		let endless = || async {
			axum::body::Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![0; 4096]))))
		};
		is_silent(served_by(Router::new().route(path, get(endless)), &commit, enough).await, "more than");
		let elsewhere = get(|| async { Redirect::temporary("/pacer/nonces/elsewhere") });
		let there = get(|| async { Bytes::from([1u64, 2, 3].map(u64::to_le_bytes).concat()) });
		let moved = Router::new().route(path, elsewhere).route("/pacer/nonces/elsewhere", there);
		assert!(!matches!(served_by(moved, &commit, enough).await, Listing::Proven(_)));
		let never = Router::new().route(path, get(std::future::pending::<Bytes>));
		assert!(matches!(served_by(never, &commit, Duration::from_millis(100)).await, Listing::Silent(_)));
	}
}
