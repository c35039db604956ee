//! Hands out rogues' lists as their agents would: `GET /<name>/pacer/nonces?epoch=N&from=M`, 8 bytes little-endian a
//! nonce, and 404 for those who shall not have it.
//!
//! Agents fetch without saying who they are, but on one machine the kernel knows which process a connection belongs to:
//! that is how a list can be kept from one agent alone ([`Audience::AllBut`]).

use std::{
	collections::BTreeMap,
	net::SocketAddr,
	sync::{Arc, Mutex},
};

use anyhow::Context;
use axum::{
	extract::{ConnectInfo, Path, Query, State},
	http::StatusCode,
	routing::get,
	Router,
};
use pacer_types::EpochIndex;
use serde::Deserialize;

/// Who may fetch a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
	/// Everybody.
	All,
	/// Nobody.
	Nobody,
	/// Everybody but the process with this id.
	AllBut(u32),
}

/// A list and who may fetch it.
#[derive(Clone, Debug)]
struct Served {
	epoch: EpochIndex,
	nonces: Vec<u64>,
	audience: Audience,
	/// Answers given and refused.
	answers: (u32, u32),
}

type Lists = Arc<Mutex<BTreeMap<String, Served>>>;

/// Serves lists until it is dropped.
pub struct ListServer {
	address: SocketAddr,
	lists: Lists,
	task: tokio::task::JoinHandle<()>,
}

#[derive(Deserialize)]
struct Page {
	epoch: EpochIndex,
	from: usize,
}

impl ListServer {
	/// Starts on a free port of this machine, with no lists.
	///
	/// # Errors
	/// If there is no free port.
	pub async fn start() -> anyhow::Result<Self> {
		let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
		let address = listener.local_addr()?;
		let lists = Lists::default();
		let app = Router::new().route("/{name}/pacer/nonces", get(page)).with_state((lists.clone(), address));
		let app = app.into_make_service_with_connect_info::<SocketAddr>();
		let task = tokio::spawn(async move {
			// Ends with the task.
			let _ = axum::serve(listener, app).await;
		});
		Ok(Self { address, lists, task })
	}

	/// Base URL under which a rogue's agent seems to be.
	pub fn endpoint(&self, name: &str) -> String {
		format!("http://{}/{name}", self.address)
	}

	/// Serves a list from now on.
	pub fn publish(&self, name: &str, epoch: EpochIndex, nonces: Vec<u64>, audience: Audience) {
		lock(&self.lists).insert(name.into(), Served { epoch, nonces, audience, answers: (0, 0) });
	}

	/// Whether a rogue's list was published.
	pub fn serves(&self, name: &str) -> bool {
		lock(&self.lists).contains_key(name)
	}

	/// How often a rogue's list was handed out, and how often refused.
	pub fn answers(&self, name: &str) -> (u32, u32) {
		lock(&self.lists).get(name).map_or((0, 0), |served| served.answers)
	}
}

impl Drop for ListServer {
	fn drop(&mut self) {
		self.task.abort();
	}
}

fn lock(lists: &Lists) -> std::sync::MutexGuard<'_, BTreeMap<String, Served>> {
	lists.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn page(
	State((lists, own)): State<(Lists, SocketAddr)>,
	ConnectInfo(peer): ConnectInfo<SocketAddr>,
	Path(name): Path<String>,
	Query(page): Query<Page>,
) -> Result<Vec<u8>, StatusCode> {
	let audience = lock(&lists).get(&name).filter(|served| served.epoch == page.epoch).map(|served| served.audience.clone());
	let allowed = match audience.ok_or(StatusCode::NOT_FOUND)? {
		Audience::All => true,
		Audience::Nobody => false,
		Audience::AllBut(process) => !owns_connection(process, peer, own).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?,
	};
	let mut lists = lock(&lists);
	let served = lists.get_mut(&name).ok_or(StatusCode::NOT_FOUND)?;
	if !allowed {
		served.answers.1 += 1;
		return Err(StatusCode::NOT_FOUND);
	}
	served.answers.0 += 1;
	Ok(served.nonces.iter().skip(page.from).flat_map(|nonce| nonce.to_le_bytes()).collect())
}

/// Whether the connection from `peer` to `own`, both on this machine, is one of the process's.
fn owns_connection(process: u32, peer: SocketAddr, own: SocketAddr) -> anyhow::Result<bool> {
	let table = std::fs::read_to_string("/proc/net/tcp")?;
	let inode = inode_of(&table, peer.port(), own.port()).context("no such connection")?;
	let socket = format!("socket:[{inode}]");
	for entry in std::fs::read_dir(format!("/proc/{process}/fd"))? {
		// A descriptor may be closed while we look.
		if std::fs::read_link(entry?.path()).is_ok_and(|target| target.as_os_str() == socket.as_str()) {
			return Ok(true);
		}
	}
	Ok(false)
}

/// Inode of the socket with these local and remote ports in the kernel's table.
fn inode_of(table: &str, local: u16, remote: u16) -> Option<&str> {
	let ends = |field: Option<&str>, port: u16| field.is_some_and(|f| f.ends_with(&format!(":{port:04X}")));
	table.lines().skip(1).find_map(|line| {
		let mut fields = line.split_whitespace().skip(1);
		(ends(fields.next(), local) && ends(fields.next(), remote)).then(|| fields.nth(6)).flatten()
	})
}

#[cfg(test)]
mod tests {
	use super::*;

	async fn fetch(url: String) -> (u16, Vec<u8>) {
		let response = reqwest::get(url).await.unwrap();
		(response.status().as_u16(), response.bytes().await.unwrap().to_vec())
	}

	#[tokio::test]
	async fn list_should_be_served_to_its_audience_only() {
		let server = ListServer::start().await.unwrap();
		let url = |name: &str, query: &str| format!("{}/pacer/nonces?{query}", server.endpoint(name));
		server.publish("all", 3, vec![7, 9], Audience::All);
		server.publish("nobody", 3, vec![7, 9], Audience::Nobody);
		server.publish("not-me", 3, vec![7, 9], Audience::AllBut(std::process::id()));
		// The first process of the machine connects to no one here.
		server.publish("not-init", 3, vec![7, 9], Audience::AllBut(1));
		assert_eq!(fetch(url("all", "epoch=3&from=1")).await, (200, 9u64.to_le_bytes().to_vec()));
		assert_eq!(fetch(url("all", "epoch=3&from=2")).await, (200, vec![]));
		for (name, query) in
			[("all", "epoch=4&from=0"), ("nobody", "epoch=3&from=0"), ("not-me", "epoch=3&from=0"), ("none", "epoch=3&from=0")]
		{
			assert_eq!(fetch(url(name, query)).await.0, 404, "{name}");
		}
		assert_eq!(server.answers("all"), (2, 0));
		assert_eq!(server.answers("not-me"), (0, 1));
		if std::fs::read_dir("/proc/1/fd").is_ok() {
			assert_eq!(fetch(url("not-init", "epoch=3&from=0")).await.0, 200);
		}
	}

	#[test]
	fn inode_should_be_that_of_the_line_with_both_ports() {
		let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
			   0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 111 1\n\
			   1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 222 1\n";
		assert_eq!(inode_of(table, 0xC350, 0x1F90), Some("222"));
		assert_eq!(inode_of(table, 0x1F90, 0xC350), Some("111"));
		assert_eq!(inode_of(table, 1, 2), None);
	}
}
