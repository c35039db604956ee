//! Worst cases of the calls, for `frame-omni-bencher`.
//!
//! `m` members and `s` slots are varied where they count; everything else is as large as it gets: 64 members, 128 slots.
//! Dealings and openings are real ones, since only proofs that hold are verified to their end.

use alloc::{vec, vec::Vec};
use frame_benchmarking::v2::*;
use pacer_beacon::{Committee, Dealing, SecretKey, Sum, SLOTS, THRESHOLD};
use pacer_types::{
	beacon::{BeaconDuty, BeaconFault},
	duty::{signing_hash, CallKind, DutyHeader},
	node_key,
	traits::{BeaconValue, EpochClock},
	weights::HostWeight,
	AccountId, EpochIndex, Hash, Phase, SessionIndex, Slot, MAX_HOSTS,
};
use sp_runtime::RuntimeAppPublic;

use crate::{committee::bytes, phases::VALUES, *};

/// What benchmarks need of the runtime.
pub trait BenchmarkHelper {
	/// Makes it this session, which began at `start`, and this slot.
	fn set_clock(session: SessionIndex, start: Slot, slot: Slot);
	/// Sets the weights of an epoch, ascending by account.
	fn set_weights(epoch: EpochIndex, weights: Vec<HostWeight>);
	/// Makes the account a Host whose node has this key.
	fn make_host(who: &AccountId, key: &node_key::Public);
}

const EPOCH: EpochIndex = 3;
const START: Slot = 1_000_000;
const WHICH: BeaconValue = BeaconValue::Race;

/// Ascending accounts.
fn host(index: u32) -> AccountId {
	let mut account = [7; 32];
	account[..4].copy_from_slice(&index.to_be_bytes());
	account.into()
}

fn secret<T: Config>(index: u32) -> SecretKey {
	SecretKey::from_seed(&[9; 32], &Pallet::<T>::genesis_hash().0, EPOCH, &bytes(&host(index)))
}

fn header(index: u32) -> DutyHeader {
	DutyHeader { host: host(index), epoch: EPOCH, nonce: 0, valid_until: START + 1_000 }
}

/// The last slot of a phase's session.
fn go_to<T: Config>(phase: Phase, session_in_phase: u32) -> DutyHeader {
	let params = T::Clock::params();
	let session = params.epoch_sessions() * EPOCH + params.first_session_of(phase) + session_in_phase;
	T::BenchmarkHelper::set_clock(session, START, START + u64::from(params.session_slots) - 1);
	DutyHeader { valid_until: T::Clock::now().slot + 10, ..header(0) }
}

/// A committee whose members have these slots and keys, at the start of Deal.
fn seated<T: Config>(slots: &[u32]) -> Committee {
	let member = |(index, slots): (usize, &u32)| {
		let key = Some(secret::<T>(index as u32).public());
		Member { host: host(index as u32), weight: 10, slots: *slots, key }
	};
	let members = Members::truncate_from(slots.iter().enumerate().map(member).collect());
	let committee = Pallet::<T>::protocol_committee(&members).expect("enough slots");
	for which in VALUES {
		Sums::<T>::insert((EPOCH, which), SumBytes::truncate_from(Sum::new(committee.live_slots()).encode()));
	}
	Committees::<T>::insert(EPOCH, members);
	Rounds::<T>::insert(EPOCH, Round { keys_fixed: true, ..Default::default() });
	committee
}

/// `slots` among `members`, as evenly as possible.
fn even(members: u32, slots: u32) -> Vec<u32> {
	(0..members).map(|i| slots / members + u32::from(i < slots % members)).collect()
}

fn dealing<T: Config>(committee: &Committee, which: BeaconValue) -> Dealing {
	Pallet::<T>::context(EPOCH, which).deal(committee, &bytes(&host(0)), &[9; 32]).expect("a member")
}

/// One dealing is in the sum, as if from all, and nothing can be added.
fn closed<T: Config>(committee: &Committee) -> Sum {
	let mut sum = Sum::new(committee.live_slots());
	sum.add(&dealing::<T>(committee, WHICH)).expect("of this committee");
	Sums::<T>::insert((EPOCH, WHICH), SumBytes::truncate_from(sum.encode()));
	for seat in committee.seats() {
		Dealings::<T>::insert(EPOCH, AccountId::from(seat.host), Dealt { race: Hash::zero(), audit: Hash::zero() });
	}
	Rounds::<T>::mutate(EPOCH, |round| {
		let round = round.get_or_insert_with(Default::default);
		round.dealing_closed = Some(1);
		round.dealt = true;
	});
	sum
}

fn opening<T: Config>(committee: &Committee, sum: &Sum, index: u32) -> Vec<u8> {
	let context = Pallet::<T>::context(EPOCH, WHICH);
	context.open(committee, sum, &bytes(&host(index)), &secret::<T>(index)).expect("its key").encode()
}

fn signed<T: Config>(header: &DutyHeader, kind: CallKind, body: &impl codec::Encode) -> (node_key::Public, node_key::Signature) {
	let key = node_key::Public::generate_pair(None);
	T::BenchmarkHelper::make_host(&header.host, &key);
	let message = signing_hash(&Pallet::<T>::genesis_hash(), header, kind, body);
	let signature = key.sign(&message).expect("its key is in the keystore");
	(key, signature)
}

#[benchmarks]
mod benchmarks {
	use super::*;

	#[benchmark]
	fn register_key() {
		seated::<T>(&even(MAX_MEMBERS, SLOTS));
		let key = secret::<T>(0);
		let proof = key.prove(&Pallet::<T>::genesis_hash().0, EPOCH, &bytes(&host(0)));
		#[block]
		{
			Pallet::<T>::do_register(header(0), key.public(), proof);
		}
		assert!(!Pallet::<T>::was_rejected(EPOCH, &host(0), BeaconDuty::Key));
	}

	#[benchmark]
	fn deal(m: Linear<1, MAX_MEMBERS>, s: Linear<THRESHOLD, SLOTS>) {
		let committee = seated::<T>(&even(m, s));
		let bytes = VALUES.map(|which| {
			let dealing = dealing::<T>(&committee, which);
			// As if there were one already: points of an empty sum would decode faster.
			let mut sum = Sum::new(s);
			sum.add(&dealing).expect("of this committee");
			Sums::<T>::insert((EPOCH, which), SumBytes::truncate_from(sum.encode()));
			dealing.encode()
		});
		let [race, audit] = bytes;
		#[block]
		{
			Pallet::<T>::do_deal(header(0), &race, &audit);
		}
		assert!(Dealings::<T>::contains_key(EPOCH, host(0)));
	}

	#[benchmark]
	fn open(s: Linear<1, SLOTS>) {
		// Another member has the rest.
		let slots: Vec<u32> = [s, SLOTS - s].into_iter().filter(|slots| *slots > 0).collect();
		let committee = seated::<T>(&slots);
		let sum = closed::<T>(&committee);
		let opening = opening::<T>(&committee, &sum, 0);
		Rounds::<T>::mutate(EPOCH, |round| {
			if let Some(round) = round {
				round.race.status = ValueStatus::Drawn;
			}
		});
		#[block]
		{
			Pallet::<T>::do_open(header(0), WHICH, &opening);
		}
		assert!(Openings::<T>::contains_key((EPOCH, WHICH), host(0)));
	}

	#[benchmark]
	fn open_last(m: Linear<2, MAX_MEMBERS>, s: Linear<1, 64>) {
		let slots: Vec<u32> = core::iter::once(s).chain(even(m - 1, SLOTS - s)).collect();
		let committee = seated::<T>(&slots);
		let sum = closed::<T>(&committee);
		for index in 1..m {
			let bytes = opening::<T>(&committee, &sum, index);
			Pallet::<T>::do_open(header(index), WHICH, &bytes);
		}
		// All others opened; the value that they made is taken away again.
		Rounds::<T>::mutate(EPOCH, |round| {
			if let Some(round) = round {
				round.race.status = ValueStatus::Waiting;
			}
		});
		Values::<T>::remove((EPOCH, WHICH));
		let opening = opening::<T>(&committee, &sum, 0);
		#[block]
		{
			Pallet::<T>::do_open(header(0), WHICH, &opening);
		}
		assert!(Values::<T>::contains_key((EPOCH, WHICH)));
	}

	#[benchmark]
	fn authorize() {
		// Of these lengths with these members an opening has the most bytes.
		let committee = seated::<T>(&[vec![SLOTS - MAX_MEMBERS + 1], vec![1; MAX_MEMBERS as usize - 1]].concat());
		let sum = closed::<T>(&committee);
		let opening = OpeningBytes::truncate_from(opening::<T>(&committee, &sum, 0));
		let last = T::Clock::params().step_sessions - 1;
		let header = go_to::<T>(Phase::Open, last);
		let (key, signature) = signed::<T>(&header, CallKind::Open, &(WHICH, &opening));
		let valid;
		#[block]
		{
			valid = Pallet::<T>::authorize_open(&header, &key, WHICH, &opening, &signature);
		}
		assert!(valid.is_ok());
	}

	#[benchmark]
	fn authorize_dealing() {
		let committee = seated::<T>(&even(MAX_MEMBERS, SLOTS));
		let [race, audit] = VALUES.map(|which| DealingBytes::truncate_from(dealing::<T>(&committee, which).encode()));
		let header = go_to::<T>(Phase::Deal, 0);
		let members = committee_hash(&Pallet::<T>::committee(header.epoch));
		let (key, signature) = signed::<T>(&header, CallKind::Deal, &(members, &race, &audit));
		let valid;
		#[block]
		{
			valid = Pallet::<T>::authorize_deal(&header, &key, &race, &audit, &signature);
		}
		assert!(valid.is_ok());
	}

	#[benchmark]
	fn track() {
		seated::<T>(&even(MAX_MEMBERS, SLOTS));
		go_to::<T>(Phase::Deal, 0);
		#[block]
		{
			Pallet::<T>::advance();
		}
		assert!(Rounds::<T>::get(EPOCH).is_some_and(|round| round.dealing_closed.is_none()));
	}

	/// The first block of an epoch with the most Hosts, when the epoch that is forgotten left the most.
	#[benchmark]
	fn turn() {
		go_to::<T>(Phase::Inference, 0);
		let weights = (0..MAX_HOSTS).map(|i| HostWeight { host: host(i), work: 10, consensus: 1_000 + u64::from(i) });
		T::BenchmarkHelper::set_weights(EPOCH, weights.collect());
		let old = EPOCH - 3;
		Committees::<T>::insert(old, Pallet::<T>::seated(EPOCH));
		Rounds::<T>::insert(old, Round::default());
		let duties = [BeaconDuty::Key, BeaconDuty::Deal].into_iter().chain(VALUES.map(BeaconDuty::Open));
		let duties: Vec<BeaconDuty> = duties.collect();
		for index in 0..MAX_MEMBERS {
			Dealings::<T>::insert(old, host(index), Dealt { race: Hash::zero(), audit: Hash::zero() });
			for which in VALUES {
				Openings::<T>::insert((old, which), host(index), Shares::truncate_from(vec![(1, [1; 32]); 2]));
			}
			for duty in &duties {
				Rejections::<T>::insert(old, (host(index), *duty), BeaconFault::Malformed);
			}
		}
		for which in VALUES {
			Values::<T>::insert((old, which), [1; 32]);
			Sums::<T>::insert((old, which), SumBytes::truncate_from(vec![1; MAX_SUM as usize]));
		}
		#[block]
		{
			Pallet::<T>::advance();
		}
		assert_eq!(Committees::<T>::decode_len(EPOCH), Some(MAX_MEMBERS as usize));
		assert_eq!(Dealings::<T>::iter_prefix(old).count() + Rejections::<T>::iter_prefix(old).count(), 0);
	}

	impl_benchmark_test_suite!(Pallet, crate::mock::bench_externalities(), crate::mock::Test);
}
