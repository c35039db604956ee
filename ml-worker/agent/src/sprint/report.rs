//! `pacer-agent sprint audit`: the checks of an agent, for a person.
//!
//! For each Host: whether its list can be had, has the committed root (which also says that it is strictly ascending),
//! and whether the nonces at the chosen positions are appropriate. Of a wrong nonce the first false step is named: that
//! of the Host's answer if the position is disputed, else that of an honest answer, which can only be the last one.
//! Where the list is withheld, what the Host had to post on chain is checked instead.

use std::{collections::BTreeSet, fmt, time::Duration};

use futures::{StreamExt, TryStreamExt};
use pacer_sprint::{first_false_step, Step, TreeError};
use pacer_types::{
	views::{CommitView, HostView, SprintView},
	AccountId, EpochIndex,
};
use serde::Serialize;

use crate::{
	chain::Api,
	error::{Error, Result},
	peers::Peers,
	sprint::{
		check::{add_private, places, public_sample, Place, Recompute, Rules, QUESTION_LIMIT},
		fetch::{fetch, Fault, Listing, Room},
	},
	wire::to_hex,
};

/// How long fetching a list may take.
const FETCH_LIMIT: Duration = Duration::from_secs(600);
/// Wrong nonces of a Host whose false step is looked for.
const MAX_NAMED: usize = 16;
/// Nonces judged between two reports of progress.
const PROGRESS: usize = 4_096;

/// Which positions to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
	/// All.
	All,
	/// Those that everyone checks, and random ones.
	Sample {
		/// How many random ones.
		private: usize,
	},
}

/// What is needed to look at a race.
pub struct Audit {
	/// The chain.
	pub api: Api,
	/// Client for agents.
	pub peers: Peers,
	/// Who recomputes nonces.
	pub recompute: Recompute,
	/// Which positions.
	pub choice: Choice,
}

/// What became of a Host's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
	/// Everything that was looked at is right.
	Holds,
	/// A nonce is not appropriate.
	False,
	/// The list cannot be had, or is not the committed one.
	Unproven,
}

/// A nonce that is not appropriate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wrong {
	/// Where it stands.
	pub position: u32,
	/// The nonce, as text: many JSON readers lose digits.
	pub nonce: String,
	/// The first step of its evaluation that is not what is claimed: `input`, `layer 3`, `output`.
	pub false_step: String,
}

/// What was found out about a Host's list.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
	/// Its address.
	pub host: String,
	/// The same, hex.
	pub account: String,
	/// Nonces it claims.
	pub count: u32,
	/// Whether the chain struck the claim.
	pub struck: bool,
	/// Whether the list came with the committed root.
	pub root_ok: bool,
	/// Whether it is strictly ascending; unknown where it did not come.
	pub ascending: Option<bool>,
	/// Positions that were checked.
	pub checked: usize,
	/// Nonces that are not appropriate, at most as many as are named.
	pub wrong: Vec<Wrong>,
	/// How many there are.
	pub wrong_count: usize,
	/// Why there is no list.
	pub why: Option<String>,
	/// What follows.
	pub verdict: Verdict,
}

/// A race as it was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
	/// Its epoch.
	pub epoch: EpochIndex,
	/// Name of the network.
	pub preset: String,
	/// Squared cosine in Q32 that makes a vector appropriate.
	pub threshold: u64,
	/// The race value.
	pub seed: String,
	/// Whether the chain has named the positions that everyone checks.
	pub is_sample_known: bool,
	/// The Hosts that claim something.
	pub hosts: Vec<Line>,
}

impl Report {
	/// Whether every list holds.
	pub fn holds(&self) -> bool {
		self.hosts.iter().all(|line| line.verdict == Verdict::Holds)
	}
}

impl Audit {
	/// Looks at the race of an epoch, or at one Host in it.
	///
	/// # Errors
	/// If the node does not answer, there was no race, the Host claims nothing, or nonces cannot be recomputed.
	pub async fn run(&self, epoch: EpochIndex, only: Option<&AccountId>) -> Result<Report> {
		let (sprint, hosts) = futures::try_join!(self.api.sprint(epoch), self.api.hosts())?;
		let no_race = || Error::Settings(format!("there was no race in epoch {epoch}, or it has not begun"));
		let rules = Rules::of(&sprint).ok_or_else(no_race)?;
		let commits: Vec<&CommitView> = sprint.commits.iter().filter(|c| only.is_none_or(|host| c.host == *host)).collect();
		if let (true, Some(host)) = (commits.is_empty(), only) {
			return Err(Error::Settings(format!("{host} committed to nothing in epoch {epoch}")));
		}
		let room = Room::default();
		let lines = commits.iter().map(|commit| self.look(&sprint, &rules, &hosts, commit, &room));
		let lines: Vec<Line> = futures::stream::iter(lines).buffered(2).try_collect().await?;
		Ok(Report {
			epoch,
			preset: rules.preset.name().to_owned(),
			threshold: rules.threshold,
			seed: to_hex(rules.seed),
			is_sample_known: sprint.commits.iter().all(|commit| public_sample(&sprint, commit).is_some()),
			hosts: lines,
		})
	}

	async fn look(
		&self,
		sprint: &SprintView,
		rules: &Rules,
		hosts: &[HostView],
		commit: &CommitView,
		room: &Room,
	) -> Result<Line> {
		let endpoint = hosts.iter().find(|h| h.account == commit.host).and_then(|h| String::from_utf8(h.endpoint.clone()).ok());
		let endpoint = endpoint.as_deref().map(|url| url.trim_end_matches('/'));
		let listing = fetch(&self.peers, endpoint, sprint.epoch, commit, FETCH_LIMIT, room).await;
		let posted = || sprint.demands.iter().find(|d| d.subject == commit.host).map(|d| d.posted.clone()).unwrap_or_default();
		let (chosen, ascending, why) = match &listing {
			Listing::Proven(nonces) => (places(nonces, self.positions(sprint, commit)), Some(true), None),
			Listing::Another(fault) => {
				let is_ascending = !matches!(fault, Fault::Order(TreeError::Order(_)));
				(posted(), Some(is_ascending), Some(fault.to_string()))
			}
			Listing::Silent(why) => (posted(), None, Some(why.clone())),
			// Two at a time have room; should that change, an error is better than a verdict.
			Listing::NoRoom => return Err(Error::Settings("there is no room for more lists".into())),
		};
		let false_ones = self.false_ones(rules, &commit.host, &chosen).await?;
		let mut wrong = Vec::new();
		for place in false_ones.iter().take(MAX_NAMED) {
			wrong.push(name(sprint, rules, &commit.host, *place).await?);
		}
		let verdict = match (&listing, false_ones.is_empty()) {
			(_, false) => Verdict::False,
			(Listing::Proven(_), true) => Verdict::Holds,
			_ => Verdict::Unproven,
		};
		Ok(Line {
			host: commit.host.to_string(),
			account: to_hex(&commit.host),
			count: commit.count,
			struck: commit.struck,
			root_ok: why.is_none(),
			ascending,
			checked: chosen.len(),
			wrong,
			wrong_count: false_ones.len(),
			why,
			verdict,
		})
	}

	fn positions(&self, sprint: &SprintView, commit: &CommitView) -> BTreeSet<u32> {
		match self.choice {
			Choice::All => (0..commit.count).collect(),
			Choice::Sample { private } => {
				let mut chosen = public_sample(sprint, commit).unwrap_or_default().into_iter().collect();
				add_private(&mut chosen, commit.count, private);
				chosen
			}
		}
	}

	async fn false_ones(&self, rules: &Rules, host: &AccountId, chosen: &[Place]) -> Result<Vec<Place>> {
		let mut found = Vec::new();
		for (i, part) in chosen.chunks(PROGRESS).enumerate() {
			if i > 0 {
				tracing::info!("{host}: {} of {} positions", i * PROGRESS, chosen.len());
			}
			let nonces: Vec<u64> = part.iter().map(|(_, nonce)| *nonce).collect();
			let judged = self.recompute.judge(rules, host, &nonces, QUESTION_LIMIT).await?;
			found.extend(part.iter().zip(judged).filter(|(_, ok)| !ok).map(|(place, _)| *place));
		}
		Ok(found)
	}
}

/// Names the first false step of a wrong nonce.
async fn name(sprint: &SprintView, rules: &Rules, host: &AccountId, (position, nonce): Place) -> Result<Wrong> {
	let (rules, owned) = (*rules, host.clone());
	let trace = tokio::task::spawn_blocking(move || rules.trace(&owned, nonce)).await.map_err(Error::engine)??;
	let dispute = sprint.disputes.iter().find(|d| d.subject == *host && d.position == position);
	let claimed = match dispute.and_then(|d| d.answer.as_ref()) {
		Some((_, hashes)) => hashes.iter().map(|hash| hash.0).collect(),
		None => trace.hashes(),
	};
	if trace.appropriate {
		return Err(Error::Engine(format!("it rejects nonce {nonce} of {host}, which is right by the reference")));
	}
	let false_step = match first_false_step(&trace, &claimed) {
		Some(Step::Layer { index, .. }) => format!("layer {index}"),
		step => step.map_or("output", |step| step.name()).to_owned(),
	};
	Ok(Wrong { position, nonce: nonce.to_string(), false_step })
}

impl fmt::Display for Report {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		writeln!(f, "race of epoch {}: {} network, threshold {}, seed {}", self.epoch, self.preset, self.threshold, self.seed)?;
		if !self.is_sample_known {
			writeln!(f, "the chain has not named the common positions (yet): only random ones are checked")?;
		}
		for line in &self.hosts {
			writeln!(f, "\n{}{}", line.host, if line.struck { "   struck by the chain" } else { "" })?;
			let list = line.why.as_deref().unwrap_or("root ok, strictly ascending");
			writeln!(f, "  claims {} nonces; {list}", line.count)?;
			writeln!(f, "  {} positions checked, {} wrong", line.checked, line.wrong_count)?;
			for wrong in &line.wrong {
				writeln!(f, "    position {}: nonce {}, first false step: {}", wrong.position, wrong.nonce, wrong.false_step)?;
			}
			let verdict = match line.verdict {
				Verdict::Holds => "holds",
				Verdict::False => "FALSE",
				Verdict::Unproven => "UNPROVEN",
			};
			writeln!(f, "  {verdict}")?;
		}
		if self.hosts.is_empty() {
			writeln!(f, "nobody claims anything")?;
		}
		Ok(())
	}
}
