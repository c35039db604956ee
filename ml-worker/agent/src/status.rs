//! What the agent says about itself: JSON over HTTP, and one screen for a person.

use serde::{Deserialize, Serialize};

use crate::{app::App, chain::Api, error::Result, gateway::draw, wire::read_json};

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
	/// Records on their way: starts, finishes, verdicts.
	pub queued: [usize; 3],
	/// Requests of clients under way.
	pub clients: usize,
	/// Requests being executed.
	pub executing: usize,
	/// All Hosts.
	pub hosts: Vec<HostLine>,
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
		let status = Status { epoch: 3, phase: "Race".into(), hosts: vec![host, idle], engines: 1, ..Default::default() };
		let text = screen(&status);
		assert!(text.contains("epoch 3  Race") && text.contains("5Alice") && text.contains("no heartbeat"));
		assert!(text.lines().count() < 24);
	}
}
