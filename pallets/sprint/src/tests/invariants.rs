//! Whatever Hosts and the network do, the invariants hold and the chain has authorities.

use super::lists::*;
use crate::{mock::*, Call, Disputes};
use pacer_types::{
	traits::{EpochClock, EpochWeights, HostBonds},
	Phase,
};
use proptest::prelude::*;

/// Something that may happen.
#[derive(Clone, Debug)]
enum Op {
	/// Blocks pass, two slots apart.
	Blocks(u8),
	/// Nobody makes a block for some slots.
	Gap(u8),
	Heartbeats,
	Commit(usize, u32),
	Penalise(usize),
	Beacon(bool, bool),
	/// The clock goes to the Audit, with honest lists of all Hosts; nothing if it is past Race.
	Audit,
	/// Who, whom, position, by a wallet.
	Challenge(usize, usize, u32, bool),
	/// The open dispute with this number modulo their number is answered; with a wrong hash at this place, if any.
	Answer(usize, Option<usize>),
	/// That dispute is refuted by this step.
	Refute(usize, usize),
	Demand(usize, usize, bool),
	/// The Host posts its first sampled positions.
	Post(usize, usize),
}

/// Nonces of a list in these tests.
const COUNT: usize = 70;

fn list_of(host: usize, race: u32) -> List {
	List::made_up(NAMES[host], race, COUNT as u64)
}

fn op() -> impl Strategy<Value = Op> {
	let host = 0..NAMES.len();
	prop_oneof![
		6 => (1u8..60).prop_map(Op::Blocks),
		1 => (2u8..90).prop_map(Op::Gap),
		2 => Just(Op::Heartbeats),
		4 => (host.clone(), 0u32..1_200).prop_map(|(h, n)| Op::Commit(h, n)),
		1 => host.clone().prop_map(Op::Penalise),
		3 => Just(Op::Audit),
		8 => (host.clone(), host.clone(), 0u32..COUNT as u32 + 2, any::<bool>())
			.prop_map(|(by, of, at, wallet)| Op::Challenge(by, of, at, wallet)),
		6 => (0usize..8, prop::option::of(0usize..6)).prop_map(|(i, wrong)| Op::Answer(i, wrong)),
		6 => (0usize..8, 0usize..6).prop_map(|(i, step)| Op::Refute(i, step)),
		6 => (host.clone(), host.clone(), any::<bool>()).prop_map(|(by, of, pays)| Op::Demand(by, of, pays)),
		6 => (host, 1usize..17).prop_map(|(host, n)| Op::Post(host, n)),
		1 => (prop::bool::weighted(0.9), prop::bool::weighted(0.9)).prop_map(|(r, a)| Op::Beacon(r, a)),
	]
}

fn apply(op: Op) {
	match op {
		Op::Blocks(n) => (0..n).for_each(|_| begin_block(CurrentSlot::get() + 2)),
		Op::Gap(slots) => begin_block(CurrentSlot::get() + u64::from(slots)),
		Op::Heartbeats => heartbeats(),
		Op::Commit(host, count) => {
			let _ = submit(&commit(NAMES[host], count));
		}
		Op::Audit => {
			if Sprint::phase() <= Phase::Race {
				let race = Sprint::epoch();
				heartbeats();
				run_to(race, Phase::Race);
				for host in 0..NAMES.len() {
					let _ = submit(&list_of(host, race).commit());
				}
				run_to(race, Phase::Audit);
				begin_block(CurrentSlot::get() + 1);
				begin_block(CurrentSlot::get() + 1);
			}
		}
		Op::Challenge(by, of, position, of_wallet) => {
			let late = Sprint::phase() == Phase::Inference;
			let race = Sprint::epoch().saturating_sub(u32::from(late));
			if of_wallet {
				let call = Call::challenge_signed { race, subject: account(NAMES[of]), position };
				let _ = wallet(WALLETS[by % WALLETS.len()], call);
			} else {
				let _ = submit(&challenge_in(race, NAMES[by], NAMES[of], position));
			}
		}
		Op::Answer(i, wrong) => {
			if let Some((race, id, dispute)) = open(i) {
				let host = NAMES.iter().position(|name| account(name) == dispute.subject).expect("a Host");
				let list = list_of(host, race);
				if list.tree.root() == crate::Commits::<Test>::get(race, &dispute.subject).expect("kept").root.0 {
					let _ = submit(&list.answer_with(id, dispute.position, wrong));
				}
			}
		}
		Op::Refute(i, step) => {
			if let Some((race, id, dispute)) = open(i) {
				let host = NAMES.iter().position(|name| account(name) == dispute.subject).expect("a Host");
				let step = steps(&list_of(host, race).trace_at(dispute.position)).swap_remove(step);
				let by = &dispute.deposit.by;
				let name = NAMES.iter().chain(&WALLETS).find(|name| account(name) == by.who).expect("known");
				if by.wallet {
					let _ = wallet(name, Call::refute_signed { race, dispute: id, step });
				} else {
					let _ = submit(&refute(name, race, id, step));
				}
			}
		}
		Op::Demand(by, of, pays) => {
			let _ = submit(&demand(NAMES[by], NAMES[of], pays));
		}
		Op::Post(host, n) => {
			let race = Sprint::epoch();
			let posted = demand_on(NAMES[host]).map(|demand| demand.posted).unwrap_or_default();
			if let Some(sampled) = Sprint::sampled(race, &account(NAMES[host])) {
				let missing: Vec<u32> =
					sampled.into_iter().filter(|p| posted.iter().all(|(at, _)| at != p) && *p < COUNT as u32).take(n).collect();
				let _ = submit(&list_of(host, race).post(&missing));
			}
		}
		Op::Penalise(host) => Sprint::penalise(&account(NAMES[host])),
		Op::Beacon(race, audit) => {
			RaceValue::set(race);
			AuditValue::set(audit);
		}
	}
}

/// One of the open disputes.
fn open(i: usize) -> Option<(u32, u32, crate::Dispute)> {
	let mut all: Vec<_> = Disputes::<Test>::iter().collect();
	all.sort_by_key(|(race, id, _)| (*race, *id));
	let count = all.len().max(1);
	all.into_iter().nth(i % count)
}

/// What is locked of every Host's bond is what its claim and its open disputes and demands lock.
fn bonds_add_up() {
	for name in NAMES {
		let who = account(name);
		let claims =
			crate::Commits::<Test>::iter().filter(|(race, host, _)| *host == who && Sprint::weights(race + 1).is_empty());
		let claims: u128 = claims.map(|(_, _, commit)| commit.bond).sum();
		let own = |deposit: &crate::Deposit| deposit.by.who == who && !deposit.by.wallet;
		let disputes: u128 = Disputes::<Test>::iter_values().map(|d| d.deposit).filter(own).map(|d| d.amount).sum();
		let demands = crate::Demands::<Test>::iter_values().filter_map(|demand| demand.deposit);
		let demands: u128 = demands.filter(own).map(|d| d.amount).sum();
		let bond = pallet_hosts::Hosts::<Test>::get(&who).unwrap().bond;
		assert_eq!(Hosts::free_bond(&who), bond - claims - disputes - demands, "{name}");
	}
}

proptest! {
	#![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

	#[test]
	fn invariants_should_hold_when_anything_happens(ops in prop::collection::vec(op(), 1..60), mean_of in 1u32..=5) {
		build_with(mean_of, 2, || {
			for op in ops {
				apply(op);
				Sprint::do_try_state().unwrap();
				bonds_add_up();
				assert!(!Sprint::weights(Sprint::epoch()).is_empty(), "an epoch without authorities");
				let frozen = Sprint::weights(Sprint::epoch() + 1);
				assert_eq!(!frozen.is_empty(), Sprint::phase() == Phase::Switch);
			}
		});
	}
}
