//! Audits and disputes against a chain in memory, with real nonces of the `dev` network.

mod audit;
mod dispute;
mod report;

use std::sync::Arc;

use pacer_sprint::{dispute::judge, Claim, Step, Trace};
use pacer_types::{
	views::{DemandView, DisputeView},
	AccountId, DutyCall, Hash, Phase, SignedDutyCall,
};

use crate::{
	chain::once::OneShots,
	engine::Engines,
	peers::{Peers, Reach},
	run::http_client,
	sprint::{audit::Auditor, check::Rules, dispute::Disputer},
	store::DataDir,
	testing::{serve_list, FakeChain, FakeEngine},
};

/// The epoch whose race the fake chain holds.
const RACE: u32 = 5;

/// A chain in Audit on which Host 0's agent looks at Host 1.
struct World {
	chain: FakeChain,
	rules: Rules,
}

impl World {
	fn new() -> Self {
		let chain = FakeChain::four_hosts();
		chain.enter(Phase::Audit);
		let mut rules = None;
		chain.edit_race(|race| rules = Rules::of(race));
		Self { chain, rules: rules.unwrap() }
	}

	/// The first `count` nonces of a Host that are appropriate, or are not.
	fn nonces(&self, host: usize, count: usize, appropriate: bool) -> Vec<u64> {
		let Rules { preset, seed, threshold } = self.rules;
		let host = self.chain.account(host);
		let is = |n: &u64| pacer_sprint::is_appropriate(&preset.config(), &seed, threshold, host.as_ref(), *n).unwrap();
		(0..).filter(|n| is(n) == appropriate).take(count).collect()
	}

	fn trace(&self, host: usize, nonce: u64) -> Trace {
		self.rules.trace(&self.chain.account(host), nonce).unwrap()
	}

	fn commit(&self, host: usize, nonces: &[u64]) {
		self.chain.commit(host, nonces.len() as u32, Hash::from(pacer_sprint::tree::root_of(nonces).unwrap()));
	}

	async fn serve(&self, host: usize, nonces: &[u64]) {
		self.chain.set_endpoint(host, serve_list(nonces.to_vec()).await);
	}

	fn auditor(&self, engines: &Engines) -> Auditor {
		let once = OneShots::new(self.chain.api(), self.chain.key(0));
		Auditor::new(self.chain.api(), engines.clone(), Peers::new(Reach::Anywhere).unwrap(), once)
	}

	/// Steps until nothing is being checked.
	async fn settle(&self, auditor: &mut Auditor) {
		auditor.step(&self.chain.view(0)).await.unwrap();
		while !auditor.is_idle() {
			auditor.finished().await;
			auditor.step(&self.chain.view(0)).await.unwrap();
		}
	}

	fn disputer(&self, host: usize, data: &Arc<DataDir>) -> Disputer {
		Disputer::new(self.chain.api(), data.clone(), OneShots::new(self.chain.api(), self.chain.key(host)))
	}

	async fn play(&self, host: usize, disputer: &mut Disputer) {
		disputer.step(&self.chain.view(host)).await.unwrap();
		while !disputer.is_idle() {
			disputer.finished().await;
			disputer.step(&self.chain.view(host)).await.unwrap();
		}
	}

	fn data(&self, host: usize, dir: &tempfile::TempDir) -> Arc<DataDir> {
		Arc::new(DataDir::open(dir.path(), &self.chain.key(host).public()).unwrap())
	}

	/// What was said since there were `known` calls.
	fn said(&self, known: usize) -> Vec<DutyCall> {
		self.chain.submitted().into_iter().skip(known).map(|call: SignedDutyCall| call.call).collect()
	}

	fn dispute(&self, id: u32, challenger: usize, subject: usize, position: u32, answer: Option<(u64, &[[u8; 32]])>) {
		let answer = answer.map(|(nonce, hashes)| (nonce, hashes.iter().map(|h| Hash::from(*h)).collect()));
		let [challenger, subject] = [challenger, subject].map(|host| self.chain.account(host));
		let deadline = self.chain.view(0).slot() + 16;
		self.chain.edit_race(|race| {
			race.disputes.retain(|d| d.id != id);
			race.disputes.push(DisputeView { race: RACE, id, subject, challenger, position, deadline, answer });
		});
	}

	fn demand(&self, subject: usize, deadline: Option<u64>, posted: Vec<(u32, u64)>) {
		let subject = self.chain.account(subject);
		self.chain.edit_race(|race| {
			race.demands = vec![DemandView { subject, weight: 10, deadline, posted }];
		});
	}

	fn is_false(&self, host: usize, nonce: u64, hashes: &[[u8; 32]], step: &Step) -> bool {
		let (account, Rules { preset, seed, threshold }) = (self.chain.account(host), self.rules);
		let claim = Claim { host: account.as_ref(), nonce, hashes };
		judge(&preset.config(), &seed, threshold, &claim, step).unwrap()
	}
}

/// A list with one nonce that is not appropriate; returns it and where it stands.
fn with_fake(mut nonces: Vec<u64>, fake: u64) -> (Vec<u64>, u32) {
	nonces.push(fake);
	nonces.sort_unstable();
	let at = nonces.iter().position(|n| *n == fake).unwrap();
	(nonces, at as u32)
}

fn no_engines() -> Engines {
	Engines::new(&[], &reqwest::Client::new())
}

async fn engines(engine: &FakeEngine) -> Engines {
	let engines = Engines::new(&[engine.url()], &http_client().unwrap());
	engines.check().await;
	engines
}

fn challenge(subject: AccountId, position: u32) -> DutyCall {
	DutyCall::Challenge { race: RACE, subject, position }
}
