//! What the agent says about itself: JSON over HTTP, and one screen for a person.

use serde::{Deserialize, Serialize};

use crate::{app::App, chain::Api, engine::Slot, error::Result, gateway::draw, wire::read_json};

/// Slots without a new block after which the chain counts as silent.
const SILENT_SLOTS: u64 = 60;

/// State of an agent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
	/// Whether blocks come in.
	pub is_following: bool,
	/// Height of the newest block.
	pub block: u32,
	/// Epoch.
	pub epoch: u32,
	/// Phase.
	pub phase: String,
	/// Seconds to its end.
	pub seconds_left: u64,
	/// The Host this agent speaks for, once registered.
	pub host: Option<String>,
	/// Its duty key, hex.
	pub duty_key: String,
	/// Engines of this agent.
	pub engines: usize,
	/// Engines that answer.
	pub engines_healthy: usize,
	/// What each engine is and can do.
	pub engine_lines: Vec<EngineLine>,
	/// Records on their way: starts, finishes, verdicts.
	pub queued: [usize; 3],
	/// Requests of clients under way.
	pub clients: usize,
	/// Requests being executed.
	pub executing: usize,
	/// All Hosts.
	pub hosts: Vec<HostLine>,
}

/// An engine in one line. Without its address, which is nobody else's business.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineLine {
	/// Whether it answers.
	pub is_healthy: bool,
	/// Name and version of the server.
	pub server: String,
	/// Models it serves.
	pub models: Vec<String>,
	/// What it can do.
	pub can: Vec<String>,
	/// What it cannot do.
	pub cannot: Vec<String>,
}

impl From<&Slot> for EngineLine {
	fn from(slot: &Slot) -> Self {
		let Some(found) = slot.abilities() else { return Self::default() };
		let names = |has| found.names(has).into_iter().map(str::to_owned).collect();
		Self {
			is_healthy: slot.is_healthy(),
			server: found.server.clone(),
			models: found.models.clone(),
			can: names(true),
			cannot: names(false),
		}
	}
}

/// A Host in one line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostLine {
	/// Account.
	pub account: String,
	/// Work weight.
	pub work: u64,
	/// Consensus weight.
	pub consensus: u64,
	/// Reputation.
	pub reputation: u32,
	/// Executed in this epoch.
	pub executed: u32,
	/// Verified in this epoch.
	pub verified: u32,
	/// Missed work in this epoch.
	pub missed: u32,
	/// Whether its node sent a heartbeat in this epoch.
	pub heartbeat: bool,
	/// Whether it is excluded in this epoch.
	pub excluded: bool,
}

impl From<&pacer_types::views::HostView> for HostLine {
	fn from(h: &pacer_types::views::HostView) -> Self {
		let w = h.work_counts;
		Self {
			account: h.account.to_string(),
			work: h.work,
			consensus: h.consensus,
			reputation: h.reputation,
			executed: w.executed,
			verified: w.verified,
			missed: w.missed,
			heartbeat: h.heartbeat,
			excluded: h.excluded,
		}
	}
}

/// State of this agent.
pub fn of(app: &App) -> Status {
	let mut status = Status {
		duty_key: hex::encode(app.key.public()),
		engines: app.engines.all().len(),
		engines_healthy: app.engines.healthy(),
		engine_lines: app.engines.all().iter().map(|slot| EngineLine::from(&**slot)).collect(),
		queued: app.queues.lengths(),
		clients: crate::app::MAX_CLIENTS - app.clients.available_permits(),
		executing: crate::app::MAX_EXECUTIONS - app.executions.available_permits(),
		..Status::default()
	};
	if let Ok(view) = app.view() {
		status.is_following = view.slot_now() < view.slot() + SILENT_SLOTS;
		status.block = view.number;
		status.epoch = view.epoch();
		status.phase = view.phase().name().to_owned();
		status.seconds_left = view.seconds_left();
		status.host = view.me.as_ref().map(ToString::to_string);
		status.hosts = view.hosts.iter().map(HostLine::from).collect();
	}
	status
}

/// Asks an agent.
pub async fn fetch(http: &reqwest::Client, agent: &str) -> Result<Status, String> {
	let url = format!("{}/pacer/status", agent.trim_end_matches('/'));
	let response = http.get(url).timeout(std::time::Duration::from_secs(5)).send().await.map_err(|e| e.to_string())?;
	read_json(response.error_for_status().map_err(|e| e.to_string())?, 4 << 20).await
}

/// Asks a node, for when no agent runs.
pub async fn from_node(api: &Api, block: u32) -> Result<Status> {
	let (clock, hosts) = futures::try_join!(api.clock(), api.hosts())?;
	// Shows early that the runtime and this agent speak the same language.
	draw::draw_value(api, clock.now.epoch).await?;
	let left = clock.now.phase_end.saturating_sub(clock.now.slot).saturating_mul(clock.params.slot_ms) / 1_000;
	Ok(Status {
		is_following: true,
		block,
		epoch: clock.now.epoch,
		phase: clock.now.phase.name().to_owned(),
		seconds_left: left,
		hosts: hosts.iter().map(HostLine::from).collect(),
		..Status::default()
	})
}

/// One screen.
pub fn screen(status: &Status) -> String {
	use std::fmt::Write;
	let mut out = String::new();
	// Writing to a string cannot fail.
	let _ = writeln!(
		out,
		"epoch {}  {}  {} s left   block {}{}",
		status.epoch,
		status.phase,
		status.seconds_left,
		status.block,
		if status.is_following { "" } else { "   (no new blocks!)" }
	);
	if status.engines > 0 {
		let host = status.host.as_deref().unwrap_or("not registered yet");
		let [starts, finishes, verdicts] = status.queued;
		let _ = writeln!(out, "host {host}");
		let (healthy, all) = (status.engines_healthy, status.engines);
		let _ = writeln!(out, "engines {healthy} of {all}   clients {}   executing {}", status.clients, status.executing);
		for (index, engine) in status.engine_lines.iter().enumerate() {
			let (server, models) = (&engine.server, engine.models.join(", "));
			let _ = match (engine.is_healthy, engine.cannot.as_slice()) {
				(false, _) => writeln!(out, "engine {index}: absent"),
				(true, []) => writeln!(out, "engine {index}: {server}, {models}"),
				(true, cannot) => writeln!(out, "engine {index}: {server}, {models}; cannot: {}", cannot.join(", ")),
			};
		}
		let _ = writeln!(out, "waiting for the chain: {starts} starts, {finishes} finishes, {verdicts} verdicts");
	}
	let _ = writeln!(
		out,
		"\n{:<50} {:>10} {:>10} {:>4} {:>8} {:>8} {:>6}",
		"host", "work", "consensus", "rep", "executed", "verified", "missed"
	);
	for h in &status.hosts {
		let mark = if h.excluded {
			" excluded"
		} else if h.heartbeat {
			""
		} else {
			" no heartbeat"
		};
		let _ = writeln!(
			out,
			"{:<50} {:>10} {:>10} {:>4} {:>8} {:>8} {:>6}{mark}",
			h.account, h.work, h.consensus, h.reputation, h.executed, h.verified, h.missed
		);
	}
	out
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn screen_should_show_every_host_when_there_are_some() {
		let host = HostLine { account: "5Alice".into(), work: 7, heartbeat: true, ..Default::default() };
		let idle = HostLine { account: "5Bob".into(), ..Default::default() };
		let engine = EngineLine { is_healthy: true, server: "llama.cpp".into(), cannot: vec!["race".into()], ..Default::default() };
		let status = Status {
			epoch: 3,
			phase: "Race".into(),
			hosts: vec![host, idle],
			engines: 2,
			engine_lines: vec![engine, EngineLine::default()],
			..Default::default()
		};
		let text = screen(&status);
		assert!(text.contains("engine 0: llama.cpp") && text.contains("cannot: race") && text.contains("engine 1: absent"));
		assert!(text.contains("epoch 3  Race") && text.contains("5Alice") && text.contains("no heartbeat"));
		assert!(text.lines().count() < 24);
	}
}
