//! What a person sees: progress bars on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pacer_types::{
	views::{ClockView, HostView, SprintView},
	Phase,
};

use pacer_localnet::network::Network;

/// The screen.
pub struct Screen {
	bars: Option<(MultiProgress, ProgressBar, Vec<ProgressBar>)>,
	/// The answer that is coming in, on a terminal.
	answer: Option<ProgressBar>,
	/// Text of it so far.
	partial: String,
	/// Lines that wait for the answer that is coming in: plain lines cannot be drawn above it.
	held: Vec<String>,
	last_phase: Option<(u32, Phase)>,
	last_table: Option<u32>,
}

impl Screen {
	/// A screen for `hosts` Hosts; bars only if stdout is a terminal.
	pub fn new(hosts: usize) -> Self {
		let bars = std::io::stdout().is_terminal().then(|| {
			// Where the lines go, too: a redirected stderr takes nothing away. Bars are cut off at the terminal's edge, for
			// wrapped ones cannot be drawn over.
			let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
			let style = |t: &str| ProgressStyle::with_template(t).unwrap_or_else(|_| ProgressStyle::default_bar());
			let phase = multi.add(ProgressBar::new(100).with_style(style("{prefix:>18} {bar:20.cyan/blue} {wide_msg}")));
			let rows = (0..hosts + 1)
				.map(|_| multi.add(ProgressBar::new(100).with_style(style("{prefix:>18} {bar:20.green/black} {wide_msg}"))))
				.collect();
			(multi, phase, rows)
		});
		let answer = bars.as_ref().map(|(multi, ..)| {
			let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
			multi.insert(0, ProgressBar::new(1).with_style(style))
		});
		Self { bars, answer, partial: String::new(), held: Vec::new(), last_phase: None, last_table: None }
	}

	/// A piece of an answer, as it streams in.
	pub fn piece(&mut self, text: &str) {
		if self.partial.is_empty() {
			self.partial = "  A: ".into();
			if self.answer.is_none() {
				print!("{}", self.partial);
			}
		}
		self.partial += text;
		match &self.answer {
			Some(bar) => bar.set_message(self.partial.clone()),
			None => {
				print!("{text}");
				let _ = std::io::stdout().flush();
			}
		}
	}

	/// The answer is complete, or failed; `note` says how it went.
	pub fn end_answer(&mut self, note: &str) {
		let text = std::mem::take(&mut self.partial);
		match (&self.bars, &self.answer) {
			(Some((multi, ..)), Some(bar)) => {
				bar.set_message("");
				let _ = multi.println(format!("{text} {note}"));
			}
			_ if text.is_empty() => println!("  {note}"),
			_ => println!(" {note}"),
		}
		for line in std::mem::take(&mut self.held) {
			println!("{line}");
		}
	}

	/// A line that stays.
	pub fn line(&mut self, text: impl Into<String>) {
		let text = text.into();
		match &self.bars {
			Some((multi, ..)) => {
				let _ = multi.println(text);
			}
			None if self.partial.is_empty() => println!("{text}"),
			None => self.held.push(text),
		}
	}

	/// Shows where the network stands.
	pub fn update(
		&mut self,
		network: &Network,
		clock: &ClockView,
		hosts: &[HostView],
		sprint: &SprintView,
		block: u32,
		finalized: u32,
	) {
		let now = &clock.now;
		let left = now.phase_end.saturating_sub(now.slot) * clock.params.slot_ms / 1_000;
		let length = now.phase_end.saturating_sub(now.phase_start).max(1);
		if self.last_phase != Some((now.epoch, now.phase)) {
			self.last_phase = Some((now.epoch, now.phase));
			let what = match now.phase {
				Phase::Inference => "serving; nothing else",
				Phase::Deal => "nodes deal shares of their secrets",
				Phase::SpareDeal => "in reserve, should Deal have failed",
				Phase::Open => "nodes open it together: the race value",
				Phase::Race => "engines race, serving goes on",
				Phase::Audit => "Hosts recompute samples of each other's lists",
				Phase::Switch => "new weights are announced, rewards settled",
			};
			self.line(format!(
				"[epoch {}] {:<10} {left:>3} s  block {block}, final {finalized}  {what}",
				now.epoch,
				now.phase.name()
			));
			if now.phase == Phase::Audit {
				for commit in &sprint.commits {
					self.line(format!("            {:<8} claims {:>6} nonces", network.name_of(&commit.host), commit.count));
				}
			}
		}
		if self.last_table != Some(now.epoch) {
			self.last_table = Some(now.epoch);
			self.line(host_table(network, hosts));
		}
		if let Some((_, phase, rows)) = &self.bars {
			phase.set_prefix(format!("epoch {} {}", now.epoch, now.phase.name()));
			phase.set_position(100 * now.slot.saturating_sub(now.phase_start) / length);
			phase.set_message(format!("{left:>3} s left, block {block}, final {finalized}"));
			let total: u64 = hosts.iter().map(|h| h.work).sum::<u64>().max(1);
			for (row, host) in rows.iter().zip(hosts) {
				let found = sprint.commits.iter().find(|c| c.host == host.account).map_or(0, |c| c.count);
				let counts = &host.work_counts;
				row.set_prefix(network.name_of(&host.account));
				row.set_position(100 * host.work / total);
				row.set_message(format!(
					"weight {:>5}  raced {found:>5}  executed {:>3}  verified {:>3}  missed {}  rep {}",
					host.work, counts.executed, counts.verified, counts.missed, host.reputation
				));
			}
		}
	}

	/// Takes the bars away, and shows what still waits.
	pub fn finish(&mut self) {
		if !self.partial.is_empty() {
			self.end_answer("(cut off)");
		}
		if let Some((_, phase, rows)) = &self.bars {
			phase.finish_and_clear();
			self.answer.iter().for_each(|bar| bar.finish_and_clear());
			rows.iter().for_each(|row| row.finish_and_clear());
		}
	}
}

fn host_table(network: &Network, hosts: &[HostView]) -> String {
	let mut text = String::from("            Host       work  consensus  share  reputation  races");
	let total: u64 = hosts.iter().map(|h| h.consensus).sum::<u64>().max(1);
	for host in hosts {
		let share = host.consensus as f64 * 100.0 / total as f64;
		let races = if host.may_race { "yes" } else { "not yet" };
		text += &format!(
			"\n            {:<8} {:>6} {:>10} {share:>5.1}% {:>11}  {races}",
			network.name_of(&host.account),
			host.work,
			host.consensus,
			host.reputation
		);
	}
	text
}
