//! Worst cases of the calls, for `frame-omni-bencher`.
//!
//! `refute_*` is the layer that costs most in each network (all positions, all heads), shown to be false: so the strike
//! and the end of other disputes on top of it. Calls of duty keys are measured through those of wallets where there are
//! any: they touch the same storage. Authorizations are measured to their end, the signature included.

use alloc::{vec, vec::Vec};
use frame_benchmarking::v2::*;
use frame_support::traits::{fungible::Mutate, Get};
use frame_system::{pallet_prelude::BlockNumberFor, RawOrigin};
use pacer_sprint::{sample::SAMPLES, state_hash, Opening, Preset, RangeTree, Step};
use pacer_types::{
	duty::{signing_hash, CallKind, DutyHeader, MAX_POSTED},
	traits::{BeaconValue, EpochClock},
	weights::HostWeight,
	AccountId, Balance, ClockParams, DutyKey, DutySignature, EpochIndex, Hash, Phase, SessionIndex, Slot, MAX_HOSTS,
};

use crate::*;

/// What benchmarks need of the runtime.
pub trait BenchmarkHelper {
	/// Makes it this session, which began at `start`, and this slot.
	fn set_clock(session: SessionIndex, start: Slot, slot: Slot);
	/// Makes a random value known.
	fn set_value(epoch: EpochIndex, which: BeaconValue, value: [u8; 32]);
	/// Makes the account a Host with a bond and with [`Self::duty_key`].
	fn make_host(who: &AccountId, bond: Balance);
	/// The duty key of all Hosts.
	fn duty_key() -> DutyKey;
	/// Its signature.
	fn sign(message: &[u8]) -> DutySignature;
}

const RACE: EpochIndex = 1;
const START: Slot = 1_000_000;
/// Disputes of others that a strike ends at once, and one more.
const OTHERS: u32 = 9;

/// An account with money.
fn funded<T: Config>(index: u32) -> AccountId {
	let who = AccountId::new([index as u8 + 1; 32]);
	let _ = T::Currency::mint_into(&who, T::ChallengeDeposit::get().saturating_mul(1_000_000));
	who
}

/// The race's Audit on the production clock, sample known, with one claim of the Host `subject`.
fn in_audit<T: Config>(preset: Preset, tree: &RangeTree) -> AccountId {
	let params = ClockParams::PRODUCTION;
	Params::<T>::put(params);
	RaceRules::<T>::mutate(|rules| rules.preset = preset.index());
	let session = params.epoch_sessions() * RACE + params.first_session_of(Phase::Audit);
	T::BenchmarkHelper::set_clock(session, START, START + 20);
	T::BenchmarkHelper::set_value(RACE, BeaconValue::Race, [1; 32]);
	T::BenchmarkHelper::set_value(RACE, BeaconValue::Audit, [2; 32]);
	Salts::<T>::insert(RACE, Salt::truncate_from(vec![[3; 32], [4; 32]]));
	assert_eq!(Pallet::<T>::phase(), Phase::Audit);
	let subject = AccountId::new([200; 32]);
	let bond = Pallet::<T>::stake_for(tree.count());
	T::BenchmarkHelper::make_host(&subject, bond.saturating_mul(10).saturating_add(T::ChallengeDeposit::get()));
	let _ = <T::Bonds as pacer_types::traits::HostBonds>::lock(&subject, bond);
	let root = Hash::from(tree.root());
	Commits::<T>::insert(RACE, &subject, Commitment { count: tree.count(), root, bond });
	subject
}

fn tree(count: u64) -> RangeTree {
	RangeTree::build(&(0..count).map(|i| 7 * i).collect::<Vec<_>>()).expect("ascending")
}

fn challenged<T: Config>(subject: &AccountId, position: u32, index: u32) -> AccountId {
	let who = funded::<T>(index);
	Pallet::<T>::do_challenge(RACE, Party { who: who.clone(), wallet: true }, subject.clone(), position);
	who
}

/// An answered dispute about a list of which another nine positions are in dispute, and the false layer of it.
fn false_layer<T: Config>(preset: Preset) -> (AccountId, AccountId, Step) {
	let tree = tree(1_000);
	let subject = in_audit::<T>(preset, &tree);
	let challenger = challenged::<T>(&subject, 0, 0);
	(1..=OTHERS).for_each(|i| {
		challenged::<T>(&subject, i, i);
	});
	let config = preset.config();
	let state: Vec<i8> = (0..config.state_len(0)).map(|i| (i * 37 % 251) as i8).collect();
	let mut hashes = vec![Hash::zero(); config.layers as usize + 2];
	hashes[0] = state_hash(&state).into();
	Pallet::<T>::do_answer(RACE, 0, 0, StateHashes::truncate_from(hashes));
	let state = state.iter().map(|value| *value as u8).collect();
	(subject, challenger, Step::Layer { index: 0, state })
}

fn signed<T: Config>(header: &DutyHeader, kind: CallKind, body: &impl codec::Encode) -> DutySignature {
	let genesis = frame_system::Pallet::<T>::block_hash(BlockNumberFor::<T>::default());
	T::BenchmarkHelper::sign(&signing_hash(&genesis, header, kind, body))
}

#[benchmarks]
mod benchmarks {
	use super::*;

	#[benchmark]
	fn commit() {
		let subject = in_audit::<T>(Preset::Dev, &tree(1_000));
		let header = DutyHeader { host: subject.clone(), epoch: RACE, nonce: 0, valid_until: START + 50 };
		#[block]
		{
			Pallet::<T>::do_commit(header, 2_000, Hash::zero());
		}
		assert_eq!(Commits::<T>::get(RACE, subject).map(|claim| claim.count), Some(2_000));
	}

	#[benchmark]
	fn challenge() {
		let subject = in_audit::<T>(Preset::Dev, &tree(1_000));
		let challenger = funded::<T>(0);
		#[extrinsic_call]
		challenge_signed(RawOrigin::Signed(challenger), RACE, subject, 5);
		assert_eq!(Disputes::<T>::iter().count(), 1);
	}

	#[benchmark]
	fn answer() {
		let subject = in_audit::<T>(Preset::Whitepaper, &tree(1_000));
		challenged::<T>(&subject, 0, 0);
		let hashes = StateHashes::truncate_from(vec![Hash::zero(); 66]);
		#[block]
		{
			Pallet::<T>::do_answer(RACE, 0, 0, hashes);
		}
		assert!(Disputes::<T>::get(RACE, 0).is_some_and(|dispute| dispute.answer.is_some()));
	}

	#[benchmark]
	fn refute_dev() {
		let (subject, challenger, step) = false_layer::<T>(Preset::Dev);
		#[extrinsic_call]
		refute_signed(RawOrigin::Signed(challenger), RACE, 0, step);
		assert!(Struck::<T>::contains_key(RACE, subject));
	}

	#[benchmark]
	fn refute_bench() {
		let (subject, challenger, step) = false_layer::<T>(Preset::Bench);
		#[extrinsic_call]
		refute_signed(RawOrigin::Signed(challenger), RACE, 0, step);
		assert!(Struck::<T>::contains_key(RACE, subject));
	}

	#[benchmark]
	fn refute_whitepaper() {
		let (subject, challenger, step) = false_layer::<T>(Preset::Whitepaper);
		#[extrinsic_call]
		refute_signed(RawOrigin::Signed(challenger), RACE, 0, step);
		assert!(Struck::<T>::contains_key(RACE, subject));
	}

	#[benchmark]
	fn refute_wide() {
		let (subject, challenger, step) = false_layer::<T>(Preset::Wide);
		#[extrinsic_call]
		refute_signed(RawOrigin::Signed(challenger), RACE, 0, step);
		assert!(Struck::<T>::contains_key(RACE, subject));
	}

	/// A voice for a list, the authorization that reads most: all weights.
	#[benchmark]
	fn authorize() {
		let subject = in_audit::<T>(Preset::Dev, &tree(1_000));
		let by = AccountId::new([201; 32]);
		T::BenchmarkHelper::make_host(&by, T::ChallengeDeposit::get());
		let others = (0..MAX_HOSTS - 1).map(|i| AccountId::new(state_hash(&(i.to_le_bytes().map(|byte| byte as i8)))));
		let mut list: Vec<_> = others.chain([by.clone()]).map(|host| HostWeight { host, work: 1, consensus: 1 }).collect();
		list.sort_by(|a, b| a.host.cmp(&b.host));
		Weights::<T>::insert(RACE, WeightList::truncate_from(list));
		let header = DutyHeader { host: by, epoch: RACE, nonce: 0, valid_until: START + 50 };
		let signature = signed::<T>(&header, CallKind::DemandList, &(&subject, false));
		let judged;
		#[block]
		{
			judged = Pallet::<T>::authorize_demand(&header, &subject, false, &signature);
		}
		assert!(judged.is_ok());
	}

	/// As many openings as fit, in a list of two to the 16; the longest lists are half as deep again.
	#[benchmark]
	fn authorize_proof() {
		let tree = tree(1 << 16);
		let subject = in_audit::<T>(Preset::Dev, &tree);
		Pallet::<T>::do_demand(RACE, Party { who: funded::<T>(0), wallet: true }, subject.clone(), true);
		let sampled = Pallet::<T>::sampled(RACE, &subject).unwrap_or_default();
		let openings: Vec<Opening> = sampled.iter().take(MAX_POSTED as usize).filter_map(|at| tree.open(*at)).collect();
		let openings = Posted::truncate_from(openings);
		let header = DutyHeader { host: subject, epoch: RACE, nonce: 0, valid_until: START + 50 };
		let signature = signed::<T>(&header, CallKind::PostOpenings, &(&openings,));
		let judged;
		#[block]
		{
			judged = Pallet::<T>::authorize_post(&header, &openings, &signature);
		}
		assert!(openings.len() == MAX_POSTED as usize && judged.is_ok());
	}

	#[benchmark]
	fn demand_list() {
		let subject = in_audit::<T>(Preset::Dev, &tree(1_000));
		let by = funded::<T>(0);
		#[extrinsic_call]
		demand_list_signed(RawOrigin::Signed(by), RACE, subject);
		assert_eq!(Demands::<T>::iter().count(), 1);
	}

	#[benchmark]
	fn post_openings() {
		let tree = tree(1_000);
		let subject = in_audit::<T>(Preset::Dev, &tree);
		Pallet::<T>::do_demand(RACE, Party { who: funded::<T>(0), wallet: true }, subject.clone(), true);
		let sampled = Pallet::<T>::sampled(RACE, &subject).unwrap_or_default();
		assert!(sampled.len() > MAX_POSTED as usize && sampled.len() <= SAMPLES as usize);
		let openings: Vec<Opening> = sampled.iter().filter_map(|position| tree.open(*position)).collect();
		let (last, before) = openings.split_at(MAX_POSTED as usize);
		let (last, before) = (Posted::truncate_from(last.to_vec()), before.to_vec());
		before.chunks(MAX_POSTED as usize).for_each(|page| {
			Pallet::<T>::do_post(RACE, subject.clone(), &Posted::truncate_from(page.to_vec()));
		});
		#[block]
		{
			Pallet::<T>::do_post(RACE, subject.clone(), &last);
		}
		assert!(Demands::<T>::get(RACE, subject).is_some_and(|demand| demand.closed));
	}

	#[benchmark]
	fn track() {
		in_audit::<T>(Preset::Dev, &tree(10));
		#[block]
		{
			Pallet::<T>::sync();
			Pallet::<T>::note_block();
			Pallet::<T>::note_salt();
		}
		assert!(Tracked::<T>::get().is_some());
	}

	/// Disputes of wallets that nobody answered, each about another position of one Host: the first strikes it.
	#[benchmark]
	fn sweep(n: Linear<0, SETTLED_PER_BLOCK>) {
		let subject = in_audit::<T>(Preset::Dev, &tree(1_000));
		for i in 0..n {
			challenged::<T>(&subject, i, i);
		}
		let params = ClockParams::PRODUCTION;
		let session = params.epoch_sessions() * RACE + params.first_session_of(Phase::Audit);
		T::BenchmarkHelper::set_clock(session, START, START + 150);
		#[block]
		{
			Pallet::<T>::sweep();
		}
		// The strike counts for several; what it displaced is due in the next block.
		assert!(Disputes::<T>::iter().count() <= OTHERS as usize);
	}

	impl_benchmark_test_suite!(Pallet, crate::mock::new_test_ext(), crate::mock::Test);
}
