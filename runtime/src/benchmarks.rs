//! Which pallets are benchmarked, and the scenes they need. Only in a build with `runtime-benchmarks`.

use frame_support::traits::fungible::{Mutate, MutateHold};
use pacer_types::{
	node_key, traits::BeaconValue, weights::HostWeight, Balance, DutyKey, DutySignature, EpochIndex, SessionIndex, Slot,
};

use crate::*;

frame_benchmarking::define_benchmarks!([pallet_randomness, Randomness] [pallet_sprint, Sprint]);

/// Where the bencher's keystore keeps the key that signs.
const KEY_TYPE: sp_core::crypto::KeyTypeId = sp_core::crypto::KeyTypeId(*b"bnch");

/// Sets clock, randomness and Hosts directly, without the protocol that leads there.
pub struct Scene;

impl pallet_sprint::benchmarking::BenchmarkHelper for Scene {
	fn set_clock(session: SessionIndex, start: Slot, slot: Slot) {
		pallet_session::CurrentIndex::<Runtime>::put(session);
		pallet_babe::EpochIndex::<Runtime>::put(0);
		pallet_babe::GenesisSlot::<Runtime>::put(sp_consensus_babe::Slot::from(start));
		pallet_babe::CurrentSlot::<Runtime>::put(sp_consensus_babe::Slot::from(slot));
	}

	fn set_value(epoch: EpochIndex, which: BeaconValue, value: [u8; 32]) {
		pallet_randomness::Values::<Runtime>::insert((epoch, which), value);
	}

	fn make_host(who: &AccountId, bond: Balance) {
		let reason = pallet_hosts::HoldReason::Bond.into();
		let _ = Balances::mint_into(who, bond.saturating_mul(2));
		let _ = Balances::hold(&reason, who, bond);
		let info = pallet_hosts::HostInfo {
			duty_key: Self::duty_key(),
			previous_duty_key: None,
			seed_from: 0,
			endpoint: Default::default(),
			models: Default::default(),
			bond,
			races_from: 0,
			withdraw_from: None,
		};
		pallet_hosts::Hosts::<Runtime>::insert(who, info);
	}

	fn duty_key() -> DutyKey {
		sp_io::crypto::sr25519_generate(KEY_TYPE, Some(b"//Bench".to_vec()))
	}

	fn sign(message: &[u8]) -> DutySignature {
		sp_io::crypto::sr25519_sign(KEY_TYPE, &Self::duty_key(), message).unwrap_or_default()
	}
}

impl pallet_randomness::benchmarking::BenchmarkHelper for Scene {
	fn set_clock(session: SessionIndex, start: Slot, slot: Slot) {
		<Self as pallet_sprint::benchmarking::BenchmarkHelper>::set_clock(session, start, slot);
	}

	fn set_weights(epoch: EpochIndex, weights: Vec<HostWeight>) {
		pallet_sprint::Weights::<Runtime>::insert(epoch, pallet_sprint::WeightList::truncate_from(weights));
	}

	fn make_host(who: &AccountId, key: &node_key::Public) {
		<Self as pallet_sprint::benchmarking::BenchmarkHelper>::make_host(who, pacer_types::PCR);
		let owner = (node_key::KEY_TYPE, sp_runtime::RuntimeAppPublic::to_raw_vec(key));
		pallet_session::KeyOwner::<Runtime>::insert(owner, who);
	}
}
