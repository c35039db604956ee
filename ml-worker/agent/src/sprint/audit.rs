//! Checks what other Hosts claim to have found, and votes.
//!
//! A list stands if it is served, hashes to the committed root, and every sampled nonce is appropriate: 64 positions
//! that follow from the audit value, and some of this agent's own choosing that nobody can foresee. A list that is not
//! served is asked for again until Audit is nearly over; only then does silence count as a refusal.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt;
use pacer_sprint::{positions, sample::SAMPLES, Preset};
use pacer_types::{
	views::{CommitView, SprintView},
	AccountId, DutyCall, EpochIndex, Phase,
};
use rand::Rng;

use crate::{
	chain::{once::OneShots, Api, View},
	engine::{Engines, RaceStart},
	error::{Error, Result},
	sprint::{race_of, serve::PAGE},
	wire::read_limited,
};

/// Positions of the agent's own choosing.
const PRIVATE_SAMPLES: usize = 16;
/// Longest list that is fetched.
const MAX_LIST: u32 = 1 << 24;
/// How long a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Lists fetched at a time.
const CONCURRENT: usize = 4;
/// Nonces in one question to an engine.
const MAX_CHECK: usize = 2_048;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
	/// The count stands.
	Stands,
	/// It does not, and why.
	Refuted(String),
	/// The list was not served.
	Silent(String),
}

/// Audits the races of others.
pub struct Auditor {
	api: Api,
	engines: Engines,
	http: reqwest::Client,
	once: OneShots,
	findings: BTreeMap<(EpochIndex, AccountId), Finding>,
}

impl Auditor {
	/// Nothing checked yet.
	pub fn new(api: Api, engines: Engines, http: reqwest::Client, once: OneShots) -> Self {
		Self { api, engines, http, once, findings: BTreeMap::new() }
	}

	/// Checks what is new and votes on it.
	pub async fn step(&mut self, view: &View) -> Result<()> {
		let epoch = view.epoch();
		self.findings.retain(|(e, _), _| *e == epoch);
		// A Host without weight has no say.
		if view.phase() != Phase::Audit || !view.my_host().is_some_and(|h| h.consensus > 0) {
			return Ok(());
		}
		let sprint = self.api.at(view.hash).sprint(epoch).await?;
		let Some(audit) = sprint.audit.filter(|_| !sprint.skipped) else { return Ok(()) };
		let mut open: Vec<CommitView> = sprint.commits.clone();
		open.retain(|c| Some(&c.host) != view.me.as_ref() && !self.once.is_done(epoch, &vote(c, true)));
		let mut checks = Vec::new();
		for commit in open.clone() {
			if matches!(self.findings.get(&(epoch, commit.host.clone())), Some(Finding::Stands | Finding::Refuted(_))) {
				continue;
			}
			let (engines, http, sprint) = (self.engines.clone(), self.http.clone(), &sprint);
			let endpoint = view.endpoint(&commit.host);
			checks.push(async move {
				let finding = check(&engines, &http, endpoint, sprint, &audit, &commit).await;
				((epoch, commit.host), finding)
			});
		}
		let checked: Vec<_> = futures::stream::iter(checks).buffer_unordered(CONCURRENT).collect().await;
		for ((epoch, host), finding) in checked {
			match finding {
				Ok(finding) => {
					match &finding {
						Finding::Stands => tracing::info!("the count of {host} stands"),
						Finding::Refuted(why) => tracing::warn!("the count of {host} does not stand: {why}"),
						Finding::Silent(why) => tracing::debug!("{host} does not serve its list: {why}"),
					}
					self.findings.insert((epoch, host), finding);
				},
				Err(e) => tracing::warn!("the count of {host} could not be checked: {e}"),
			}
		}
		let late = view.slot_now() + u64::from(view.clock.params.session_slots) / 2 >= view.clock.now.phase_end;
		for commit in &open {
			let stands = match self.findings.get(&(epoch, commit.host.clone())) {
				Some(Finding::Stands) => true,
				Some(Finding::Refuted(_)) => false,
				Some(Finding::Silent(_)) if late => false,
				_ => continue,
			};
			self.once.ensure(view, vote(commit, stands)).await;
		}
		Ok(())
	}
}

/// Checks one commitment of the Host behind `endpoint`. An error says that this agent could not judge.
pub async fn check(
	engines: &Engines,
	http: &reqwest::Client,
	endpoint: Option<String>,
	sprint: &SprintView,
	audit: &[u8; 32],
	commit: &CommitView,
) -> Result<Finding> {
	let Some(race) = race_of(sprint, &commit.host) else { return Err(Error::node("a race of an unknown preset")) };
	if commit.count == 0 || commit.count > MAX_LIST {
		return Ok(Finding::Refuted(format!("it claims {} nonces", commit.count)));
	}
	let Some(endpoint) = endpoint else {
		return Ok(Finding::Silent("it has no usable address".into()));
	};
	let nonces = match fetch(http, &endpoint, sprint.epoch, commit.count).await {
		Ok(nonces) => nonces,
		Err(why) => return Ok(Finding::Silent(why)),
	};
	if nonces.len() != commit.count as usize {
		return Ok(Finding::Refuted(format!("it serves {} nonces, but claims {}", nonces.len(), commit.count)));
	}
	let (root, nonces) = tokio::task::spawn_blocking(move || (pacer_sprint::tree::root_of(&nonces), nonces))
		.await
		.map_err(Error::engine)?;
	match root {
		Ok(root) if root == commit.root.0 => {},
		Ok(_) => return Ok(Finding::Refuted("the list has another root than the commitment".into())),
		Err(e) => return Ok(Finding::Refuted(e.to_string())),
	}
	let sample = sample(&nonces, audit, commit);
	let judged = judge(engines, &race, sprint, &commit.host, &sample).await?;
	Ok(match sample.iter().zip(judged).find(|(_, ok)| !ok) {
		Some((nonce, _)) => Finding::Refuted(format!("nonce {nonce} is not appropriate")),
		None => Finding::Stands,
	})
}

async fn fetch(http: &reqwest::Client, endpoint: &str, epoch: EpochIndex, count: u32) -> Result<Vec<u64>, String> {
	let mut nonces: Vec<u64> = Vec::new();
	loop {
		let url = format!("{endpoint}/pacer/nonces?epoch={epoch}&from={}", nonces.len());
		let response = http.get(url).timeout(PAGE_TIMEOUT).send().await.map_err(|e| e.to_string())?;
		let response = response.error_for_status().map_err(|e| e.to_string())?;
		let bytes = read_limited(response, 8 * PAGE).await?;
		let (words, rest) = bytes.as_chunks::<8>();
		if !rest.is_empty() {
			return Err("a page ends within a nonce".into());
		}
		nonces.extend(words.iter().map(|w| u64::from_le_bytes(*w)));
		// One more than claimed is enough to see that the claim is wrong.
		if words.is_empty() || nonces.len() >= count as usize {
			return Ok(nonces);
		}
	}
}

fn vote(commit: &CommitView, stands: bool) -> DutyCall {
	DutyCall::VoteCount { subject: commit.host.clone(), stands }
}

/// The nonces to recompute: those everyone looks at, and private ones.
fn sample(nonces: &[u64], audit: &[u8; 32], commit: &CommitView) -> Vec<u64> {
	let host: &[u8; 32] = commit.host.as_ref();
	let mut places: Vec<usize> =
		positions(audit, &[], host, &commit.root.0, commit.count, SAMPLES).into_iter().map(|p| p as usize).collect();
	let mut random = rand::thread_rng();
	places.extend((0..PRIVATE_SAMPLES).map(|_| random.gen_range(0..nonces.len())));
	places.sort_unstable();
	places.dedup();
	places.into_iter().filter_map(|p| nonces.get(p).copied()).collect()
}

/// Recomputes nonces on an engine, or without one where the reference is fast enough.
async fn judge(
	engines: &Engines,
	race: &RaceStart,
	sprint: &SprintView,
	host: &AccountId,
	nonces: &[u64],
) -> Result<Vec<bool>> {
	if let Some(lease) = engines.lease() {
		let mut judged = Vec::new();
		for part in nonces.chunks(MAX_CHECK) {
			judged.extend(lease.engine().race_verify(race, part).await?);
		}
		return Ok(judged);
	}
	let (Some(Preset::Dev), Some(seed)) = (Preset::from_index(sprint.preset), sprint.seed) else {
		return Err(Error::engine("no engine is there to recompute nonces"));
	};
	let (host, threshold, nonces): ([u8; 32], _, _) = (host.clone().into(), sprint.threshold, nonces.to_vec());
	let recompute = move || {
		let one = |n: &u64| pacer_sprint::is_appropriate(&Preset::Dev.config(), &seed, threshold, &host, *n);
		nonces.iter().map(one).collect::<Result<Vec<bool>, _>>()
	};
	tokio::task::spawn_blocking(recompute).await.map_err(Error::engine)?.map_err(Error::engine)
}
