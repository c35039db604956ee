//! Disputes through the whole runtime: transactions as agents send them, BABE's VRF outputs, reputation and money.

#[allow(dead_code)]
mod driver;

use codec::Encode;
use driver::{account, duty_call, with_local_chain, Driver, HOSTS};
use frame_support::{
	dispatch::{DispatchClass, GetDispatchInfo},
	traits::fungible::InspectHold,
};
use pacer_runtime::*;
use pacer_sprint::{dispute::MAX_HASHES, first_false_step, trace, Path, Preset, RangeTree, Sibling, Step, Trace};
use pacer_types::{
	duty::{DutyCall, DutyHeader, SignedDutyCall},
	traits::{EpochWeights, HostBonds, Standing},
	views::SprintView,
	Hash, Phase, PCR,
};
use sp_core::{sr25519, Pair as _};

fn traced(view: &SprintView, host: &str, nonce: u64) -> Trace {
	let config = Preset::from_index(view.preset).expect("genesis chose it").config();
	let seed = view.seed.expect("the race is on");
	trace(&config, &seed, view.threshold, account(host).as_ref(), nonce).expect("a valid shape")
}

/// Five nonces of a Host, of which the third is merely not appropriate where `fake`.
fn list_of(view: &SprintView, host: &str, fake: bool) -> RangeTree {
	let good = (0..).filter(|nonce| traced(view, host, *nonce).appropriate);
	let mut nonces: Vec<u64> = good.take(5).collect();
	if fake {
		nonces[2] = (nonces[1] + 1..nonces[3]).find(|n| !traced(view, host, *n).appropriate).expect("most are not");
	}
	RangeTree::build(&nonces).expect("ascending")
}

fn commit_to(host: &str, tree: &RangeTree, now: pacer_types::Moment) -> RuntimeCall {
	duty_call(host, DutyCall::Commit { count: tree.count(), root: tree.root().into() }, now)
}

/// An epoch in which Dave's list has a fake, and the others' have none.
fn audited(chain: &mut Driver) -> RangeTree {
	chain.audited_epoch(0, |host, now| Some(commit_to(host, &list_of(&Sprint::sprint_view(0), host, host == "Dave"), now)));
	list_of(&Sprint::sprint_view(0), "Dave", true)
}

#[test]
fn fake_should_cost_weight_bond_reputation_and_earnings() {
	with_local_chain(|chain| {
		let dave = audited(chain);
		let challenge = DutyCall::Challenge { race: 0, subject: account("Dave"), position: 2 };
		chain.include(vec![duty_call("Alice", challenge, chain.now())]);
		let dispute = Sprint::sprint_view(0).disputes.pop().expect("it is open");
		assert_eq!((dispute.id, dispute.position, dispute.challenger), (0, 2, account("Alice")));

		let view = Sprint::sprint_view(0);
		let evaluated = traced(&view, "Dave", dave.open(2).expect("there").nonce);
		let hashes: Vec<Hash> = evaluated.hashes().into_iter().map(Hash::from).collect();
		let answer = DutyCall::Answer { race: 0, dispute: 0, opening: dave.open(2).expect("there"), hashes };
		chain.include(vec![duty_call("Dave", answer, chain.now())]);

		let claimed: Vec<[u8; 32]> = evaluated.hashes();
		let step = first_false_step(&evaluated, &claimed).expect("it is not appropriate");
		let call = duty_call("Alice", DutyCall::Refute { race: 0, dispute: 0, step }, chain.now());
		assert_eq!(call.get_dispatch_info().class, DispatchClass::Operational);
		chain.include(vec![call]);
		assert_eq!(pallet_sprint::Struck::<Runtime>::get(0, account("Dave")), Some(pallet_sprint::Strike::Output));
		let bond = 5 * PCR / 10_000;
		let held = Balances::balance_on_hold(&pallet_hosts::HoldReason::Bond.into(), &account("Dave"));
		assert_eq!(held, 1_000 * PCR - bond);

		chain.run_to(0, Phase::Switch, 0, 2);
		assert_eq!(Sprint::weight(1, &account("Dave")), None);
		assert_eq!(Sprint::weight(1, &account("Alice")).map(|w| w.work), Some(5));
		assert!(Reputation::is_excluded(0, &account("Dave")) && !Reputation::is_excluded(0, &account("Alice")));
		for host in ["Alice", "Bob", "Charlie"] {
			assert_eq!(Hosts::free_bond(&account(host)), 1_000 * PCR, "{host}");
		}
		assert!(pacer_runtime::views::conservation().ok);
	});
}

#[test]
fn host_should_fall_when_it_cannot_open_what_it_claims() {
	with_local_chain(|chain| {
		// Dave claims more than its list has.
		chain.audited_epoch(0, |host, now| {
			let tree = list_of(&Sprint::sprint_view(0), host, false);
			let count = tree.count() + u32::from(host == "Dave");
			Some(duty_call(host, DutyCall::Commit { count, root: tree.root().into() }, now))
		});
		let challenge = DutyCall::Challenge { race: 0, subject: account("Dave"), position: 5 };
		chain.include(vec![duty_call("Bob", challenge, chain.now())]);
		chain.run_to(0, Phase::Switch, 0, 2);
		assert_eq!(pallet_sprint::Struck::<Runtime>::get(0, account("Dave")), Some(pallet_sprint::Strike::Silent));
		assert_eq!(Sprint::weight(1, &account("Dave")), None);
	});
}

#[test]
fn false_dispute_should_cost_the_challengers_deposit_only() {
	with_local_chain(|chain| {
		audited(chain);
		let alice = list_of(&Sprint::sprint_view(0), "Alice", false);
		let challenge = DutyCall::Challenge { race: 0, subject: account("Alice"), position: 1 };
		chain.include(vec![duty_call("Dave", challenge, chain.now())]);
		let opening = alice.open(1).expect("there");
		let hashes = traced(&Sprint::sprint_view(0), "Alice", opening.nonce).hashes().into_iter().map(Hash::from).collect();
		chain.include(vec![duty_call("Alice", DutyCall::Answer { race: 0, dispute: 0, opening, hashes }, chain.now())]);
		chain.include(vec![duty_call("Dave", DutyCall::Refute { race: 0, dispute: 0, step: Step::Input }, chain.now())]);
		let held = |who| Balances::balance_on_hold(&pallet_hosts::HoldReason::Bond.into(), &account(who));
		assert_eq!((held("Alice"), held("Dave")), (1_000 * PCR, 990 * PCR));
		chain.run_to(0, Phase::Switch, 0, 2);
		assert_eq!(Sprint::weight(1, &account("Alice")).map(|w| w.work), Some(5));
	});
}

#[test]
fn sample_should_be_salted_with_the_first_vrf_outputs_of_audit() {
	with_local_chain(|chain| {
		audited(chain);
		let salt = Sprint::sprint_view(0).salt;
		assert_eq!(salt.len(), 64);
		assert_ne!(salt[..32], salt[32..]);
		// The next epoch has its own.
		chain.run_to(1, Phase::Audit, 0, 0);
		assert!(Sprint::sprint_view(1).salt.is_empty());
		chain.block(vec![]);
		let one = Babe::author_vrf_randomness().expect("a primary claim");
		chain.block(vec![]);
		let two = Babe::author_vrf_randomness().expect("a primary claim");
		assert_ne!(one, two);
		let other = Sprint::sprint_view(1).salt;
		assert!(other.len() == 64 && other != salt && (other.ends_with(&one) || other.ends_with(&two)));
	});
}

#[test]
fn whole_dispute_of_the_production_network_should_fit_six_kibibytes() {
	with_local_chain(|_| {
		let signed = |call: DutyCall| {
			let header = DutyHeader { host: account(HOSTS[0]), epoch: 9_999, nonce: 0, valid_until: 1 << 40 };
			let signed = SignedDutyCall { header, call, signature: Default::default() };
			pacer_runtime::views::duty_extrinsic(signed).len()
		};
		// A list of ten million nonces, the most there may be.
		let sibling = Sibling { smallest: 0, largest: u64::MAX, hash: [0; 32] };
		let path = Path::new(vec![sibling; 24]).expect("short enough");
		let opening = pacer_sprint::Opening { position: 9_999_999, nonce: u64::MAX, path };
		let config = Preset::Whitepaper.config();
		let challenge = signed(DutyCall::Challenge { race: 9_999, subject: account("Dave"), position: 9_999_999 });
		let hashes = vec![Hash::zero(); MAX_HASHES as usize];
		let answer = signed(DutyCall::Answer { race: 9_999, dispute: 4_000, opening, hashes });
		let step = Step::Layer { index: 63, state: vec![0; config.state_len(0)] };
		let refute = signed(DutyCall::Refute { race: 9_999, dispute: 4_000, step: step.clone() });
		assert!(step.encoded_size() > 2_048);
		assert!(challenge > 150 && answer > 3_000 && refute > 2_100, "{challenge} {answer} {refute}");
		assert!(challenge + answer + refute <= 6 * 1_024, "{challenge} + {answer} + {refute}");
	});
}

/// A wallet's transaction that pays this tip.
fn tipped(name: &str, call: RuntimeCall, tip: u128) -> UncheckedExtrinsic {
	let pair = sr25519::Pair::from_string(&format!("//{name}"), None).expect("a name");
	let mut ext = extension(0, sp_runtime::generic::Era::Immortal);
	ext.8 = pallet_transaction_payment::ChargeTransactionPayment::from(tip);
	let payload = SignedPayload::new(call.clone(), ext.clone()).expect("its implicit part is known");
	let signature = payload.using_encoded(|bytes| pair.sign(bytes));
	UncheckedExtrinsic::new_signed(call, account(name).into(), sp_runtime::MultiSignature::Sr25519(signature), ext)
}

/// The place in a block that the pool gives it.
fn place(extrinsic: UncheckedExtrinsic) -> u64 {
	let valid = frame_support::storage::with_transaction(|| {
		let source = sp_runtime::transaction_validity::TransactionSource::External;
		let valid = Executive::validate_transaction(source, extrinsic, Default::default());
		sp_runtime::TransactionOutcome::Rollback(Ok::<_, sp_runtime::DispatchError>(valid))
	});
	valid.expect("a transaction's layer").expect("it is valid").priority
}

#[test]
fn duty_calls_should_come_before_what_a_tip_can_buy() {
	with_local_chain(|chain| {
		audited(chain);
		let challenge = DutyCall::Challenge { race: 0, subject: account("Dave"), position: 2 };
		let challenge = duty_call("Alice", challenge, chain.now());
		let duty = place(UncheckedExtrinsic::new_transaction(challenge.clone(), unsigned_extension()));
		let remark = |len: usize| RuntimeCall::System(frame_system::Call::remark { remark: vec![0; len] });
		for len in [0, 1_000_000] {
			let (cheap, dear) =
				(place(tipped("Bob", remark(len), PCR / 1_000_000)), place(tipped("Bob", remark(len), 100 * PCR)));
			assert!(cheap < dear && dear < duty, "{len} bytes: {cheap} {dear} {duty}");
		}
		let refute = pallet_sprint::Call::refute_signed { race: 0, dispute: 0, step: Step::Input };
		assert!(place(tipped("Bob", refute.into(), 100 * PCR)) < duty);
		// With its limits, the reserve for operational calls alone holds a hundred answers.
		let opening = audited_opening();
		let answer = DutyCall::Answer { race: 0, dispute: 0, opening, hashes: vec![Hash::zero(); MAX_HASHES as usize] };
		let answer = duty_call("Dave", answer, chain.now()).get_dispatch_info();
		assert_eq!(answer.class, DispatchClass::Operational);
		assert_eq!(challenge.get_dispatch_info().class, DispatchClass::Operational);
		let limits = <Runtime as frame_system::Config>::BlockWeights::get();
		let class = limits.get(DispatchClass::Operational);
		let each = answer.total_weight().saturating_add(class.base_extrinsic);
		assert!(each.saturating_mul(100).all_lte(class.reserved.expect("there is one")), "{each:?}");
	});
}

/// Any opening will do: only its weight is asked for.
fn audited_opening() -> pacer_sprint::Opening {
	list_of(&Sprint::sprint_view(0), "Dave", true).open(2).expect("there")
}
