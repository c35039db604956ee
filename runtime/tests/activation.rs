//! One change of weights, followed through BABE and GRANDPA to the block (`design/architecture.md`, "Activation").

mod driver;

use codec::Decode;
use driver::{account, with_local_chain, Driver, HOSTS};
use frame_support::traits::OneSessionHandler as _;
use pacer_runtime::*;
use pacer_types::{traits::EpochWeights, Phase};
use sp_consensus_babe::{ConsensusLog as BabeLog, BABE_ENGINE_ID};
use sp_consensus_grandpa::{ConsensusLog as GrandpaLog, GRANDPA_ENGINE_ID};
use sp_runtime::DigestItem;

/// Weights by Host, in the order of [`HOSTS`].
fn by_host<K: PartialEq>(list: &[(K, u64)], key: impl Fn(&SessionKeys) -> K) -> Vec<u64> {
	HOSTS
		.iter()
		.map(|name| {
			let keys = pallet_session::NextKeys::<Runtime>::get(account(name)).unwrap();
			let key = key(&keys);
			list.iter().find(|(k, _)| *k == key).map_or(0, |(_, w)| *w)
		})
		.collect()
}

fn babe_now() -> Vec<u64> {
	by_host(&pallet_babe::Authorities::<Runtime>::get(), |k| k.babe.clone())
}

fn babe_next() -> Vec<u64> {
	by_host(&pallet_babe::NextAuthorities::<Runtime>::get(), |k| k.babe.clone())
}

fn grandpa_now() -> Vec<u64> {
	by_host(&pallet_grandpa::Authorities::<Runtime>::get(), |k| k.grandpa.clone())
}

/// What the last block's digest tells BABE clients of the next epoch, and GRANDPA clients of their next set.
fn announced(driver: &Driver) -> (Option<Vec<u64>>, Option<Vec<u64>>) {
	let mut babe = None;
	let mut grandpa = None;
	for log in &driver.digest.logs {
		match log {
			DigestItem::Consensus(id, data) if *id == BABE_ENGINE_ID => {
				if let Ok(BabeLog::NextEpochData(next)) = BabeLog::decode(&mut &data[..]) {
					babe = Some(by_host(&next.authorities, |k| k.babe.clone()));
				}
			},
			DigestItem::Consensus(id, data) if *id == GRANDPA_ENGINE_ID => {
				if let Ok(GrandpaLog::ScheduledChange(change)) = GrandpaLog::<u32>::decode(&mut &data[..]) {
					assert_eq!(change.delay, 0);
					grandpa = Some(by_host(&change.next_authorities, |k| k.grandpa.clone()));
				}
			},
			_ => {},
		}
	}
	(babe, grandpa)
}

#[test]
fn weights_should_reach_babe_and_grandpa_exactly_at_the_blocks_the_design_names() {
	with_local_chain(|chain| {
		let first = vec![10, 10, 10, 10];
		chain.block(vec![]);
		assert_eq!((babe_now(), babe_next(), grandpa_now()), (first.clone(), first.clone(), first.clone()));

		// With two Hosts above 30% of what remains, each is cut to 80 * 3 / 4 = 60, which is 30% of 200.
		chain.good_epoch(0, &[300, 100, 50, 30]);
		let new = vec![60, 60, 50, 30];
		let frozen: Vec<u64> = Sprint::weights(1).iter().map(|w| w.consensus).collect();
		assert_eq!(frozen.iter().sum::<u64>(), new.iter().sum::<u64>(), "{frozen:?}");
		// Switch's first block announces them to BABE; nothing else has changed.
		assert_eq!(announced(chain), (Some(new.clone()), None));
		assert_eq!((babe_now(), babe_next(), grandpa_now()), (first.clone(), new.clone(), first.clone()));

		// To the last block of Switch everything stays.
		chain.run_to(0, Phase::Switch, 0, 31);
		assert_eq!((babe_now(), grandpa_now()), (first.clone(), first));
		// The next epoch's first block uses them in BABE, and schedules GRANDPA's change without delay.
		chain.block(vec![]);
		assert_eq!((chain.now().epoch, chain.now().phase), (1, Phase::Inference));
		assert_eq!(announced(chain), (Some(new.clone()), Some(new.clone())));
		assert_eq!((babe_now(), grandpa_now()), (new.clone(), new.clone()));
		// No other session touches the set.
		chain.run_to(1, Phase::Inference, 1, 0);
		assert_eq!(announced(chain), (Some(new), None));
	});
}

#[test]
fn host_should_lose_its_place_when_it_stops_racing() {
	with_local_chain(|chain| {
		chain.good_epoch(0, &[40, 40, 40, 0]);
		chain.run_to(1, Phase::Inference, 0, 0);
		assert_eq!(babe_now(), vec![40, 40, 40, 0]);
		assert_eq!(grandpa_now(), vec![40, 40, 40, 0]);
		assert_eq!(Sprint::weight(1, &account("Dave")), None);
		assert_eq!(pallet_session::Validators::<Runtime>::get().len(), 3);
		// It races again and is back.
		chain.good_epoch(1, &[40, 40, 40, 40]);
		chain.run_to(2, Phase::Inference, 0, 0);
		assert_eq!(babe_now(), vec![40, 40, 40, 40]);
	});
}

#[test]
fn weights_should_stay_when_nobody_races() {
	with_local_chain(|chain| {
		chain.run_to(1, Phase::Inference, 0, 0);
		assert_eq!((babe_now(), grandpa_now()), (vec![10; 4], vec![10; 4]));
		assert_eq!(Sprint::weights(1), Sprint::weights(0));
		chain.run_to(2, Phase::Inference, 2, 0);
		assert_eq!(babe_now(), vec![10; 4]);
	});
}

#[test]
fn authority_without_known_weight_should_never_get_zero() {
	with_local_chain(|chain| {
		chain.block(vec![]);
		// A zero weight would panic that authority's node, and GRANDPA rejects the whole list.
		let keys = pallet_session::NextKeys::<Runtime>::get(account("Alice")).unwrap();
		let stranger = account("Ferdie");
		pacer_runtime::session::WeightedBabe::on_genesis_session([(&stranger, keys.babe)].into_iter());
		assert_eq!(pallet_babe::Authorities::<Runtime>::get()[0].1, 1);
	});
}

#[test]
fn duty_keys_of_the_presets_should_be_the_development_ones() {
	use sp_core::{sr25519, Pair};
	for (name, key) in HOSTS.iter().zip(genesis::DUTY_KEYS) {
		assert_eq!(sr25519::Pair::from_string(&format!("//{name}//duty"), None).unwrap().public().0, key);
	}
}
