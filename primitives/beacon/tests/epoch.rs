//! Whole epochs with a hostile minority, as two nodes see them: the same value everywhere, and nothing that was refused
//! has any influence.
#![allow(missing_docs)]

mod common;

use common::*;
use pacer_beacon::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What a node does with messages: decode, verify, take the first of each member.
struct Chain<'a> {
	committee: &'a Committee,
	sum: Sum,
	dealings: BTreeMap<Host, [u8; 32]>,
	openings: BTreeMap<Host, Vec<(u32, [u8; 32])>>,
}

impl<'a> Chain<'a> {
	fn new(committee: &'a Committee) -> Self {
		Self { committee, sum: Sum::new(committee.live_slots()), dealings: BTreeMap::new(), openings: BTreeMap::new() }
	}

	fn deal(&mut self, host: &Host, bytes: &[u8]) -> bool {
		let Ok(dealing) = Dealing::decode(bytes, self.committee.live_slots(), self.committee.threshold()) else { return false };
		let fresh = !self.dealings.contains_key(host);
		let good = fresh && CONTEXT.verify_dealing(self.committee, host, &dealing).is_ok();
		if good {
			self.sum.add(&dealing).expect("fits");
			self.dealings.insert(*host, dealing.hash());
		}
		good
	}

	fn open(&mut self, host: &Host, bytes: &[u8]) -> bool {
		let Some(slots) = self.committee.slots_of(host) else { return false };
		let Ok(opening) = Opening::decode(bytes, slots.len() as u32) else { return false };
		let good = CONTEXT.verify_opening(self.committee, &self.sum, host, &opening).is_ok();
		if good {
			self.openings.insert(*host, slots.zip(opening.shares()).collect());
		}
		good
	}

	fn value(&self) -> Result<Value, Error> {
		let shares: Vec<(u32, [u8; 32])> = self.openings.values().flatten().copied().collect();
		let set: Vec<(Host, [u8; 32])> = self.dealings.iter().map(|(host, hash)| (*host, *hash)).collect();
		CONTEXT.value(&set, &interpolate(&shares, self.committee.threshold())?)
	}
}

/// How a hostile member behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hostile {
	/// Neither deals nor opens.
	Silent,
	/// Deals, never opens.
	SilentOwner,
	/// Sends bytes that are almost a dealing, and an opening with a false share.
	Malformed,
	/// Sends the last honest dealing under its own name.
	Copier,
	/// Sends two true dealings, and opens.
	Equivocator,
}

const KINDS: [Hostile; 5] = [Hostile::Silent, Hostile::SilentOwner, Hostile::Malformed, Hostile::Copier, Hostile::Equivocator];

proptest! {
	#![proptest_config(cases(8))]

	#[test]
	fn value_should_be_the_same_everywhere_when_up_to_a_third_is_hostile(
		weights in prop::collection::vec(1u64..1_000, 4..=64),
		salt in any::<u64>(),
	) {
		let mut rng = Rng(salt);
		let weights: Vec<(Host, u64)> = weights.iter().enumerate().map(|(i, w)| (host(i), *w)).collect();
		let total: u64 = weights.iter().map(|(_, w)| w).sum();
		let mut hostile: BTreeMap<usize, Hostile> = BTreeMap::new();
		let mut order: Vec<usize> = (0..weights.len()).collect();
		rng.shuffle(&mut order);
		let mut weight = 0;
		for at in order {
			if 3 * (weight + weights[at].1) < total {
				weight += weights[at].1;
				hostile.insert(at, KINDS[rng.below(KINDS.len())]);
			}
		}
		let slots = seats(&weights, SLOTS);
		let (committee, members) = committee(&slots, THRESHOLD);
		let seated: Vec<usize> = (0..members.len()).filter(|at| slots[*at] > 0).collect();

		// A few honest dealers and all hostile ones; more dealers would only take longer.
		let honest: Vec<usize> = seated.iter().copied().filter(|at| !hostile.contains_key(at)).collect();
		let mut sent: Vec<(Host, Vec<u8>)> = Vec::new();
		for at in honest.iter().take(3) {
			sent.push((host(*at), CONTEXT.deal(&committee, &host(*at), &seed(*at)).expect("a member").encode()));
		}
		let genuine = sent.clone();
		for at in seated.iter().filter(|at| hostile.contains_key(at)).take(6) {
			let own = |salt: u8| CONTEXT.deal(&committee, &host(*at), &[salt; 32]).expect("a member").encode();
			match hostile[at] {
				Hostile::Silent => {},
				Hostile::SilentOwner => sent.push((host(*at), own(1))),
				Hostile::Malformed => {
					let mut bytes = own(1);
					let last = bytes.len() - 32;
					bytes[last] ^= 1;
					sent.push((host(*at), bytes));
				},
				Hostile::Copier => sent.push((host(*at), genuine.last().expect("somebody is honest").1.clone())),
				Hostile::Equivocator => sent.extend([(host(*at), own(1)), (host(*at), own(2))]),
			}
		}
		let mut first = Chain::new(&committee);
		let taken: Vec<bool> = sent.iter().map(|(host, bytes)| first.deal(host, bytes)).collect();
		// The chain fixes an order; the second node adds what the first one took, in another.
		let mut second = Chain::new(&committee);
		let mut accepted: Vec<&(Host, Vec<u8>)> = sent.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(s, _)| s).collect();
		rng.shuffle(&mut accepted);
		prop_assert!(accepted.iter().all(|(host, bytes)| second.deal(host, bytes)));
		prop_assert_eq!(&first.sum, &second.sum);
		for ((from, _), taken) in sent.iter().zip(&taken) {
			let kind = seated.iter().find(|at| host(**at) == *from).and_then(|at| hostile.get(at));
			let refused = matches!(kind, Some(Hostile::Malformed | Hostile::Copier));
			prop_assert!(kind == Some(&Hostile::Equivocator) || *taken != refused);
		}

		for chain in [&mut first, &mut second] {
			let mut openers = seated.clone();
			rng.shuffle(&mut openers);
			for at in openers {
				let mut bytes = CONTEXT.open(&committee, &chain.sum, &host(at), &members[at].secret).expect("a member").encode();
				match hostile.get(&at) {
					None | Some(Hostile::Equivocator) => prop_assert!(chain.open(&host(at), &bytes)),
					Some(Hostile::Malformed | Hostile::Copier) => {
						// A share that is a point, but not the right one.
						let public = members[at].secret.public().to_bytes();
						bytes[..32].copy_from_slice(&public);
						prop_assert!(!chain.open(&host(at), &bytes));
					},
					Some(Hostile::Silent | Hostile::SilentOwner) => {},
				}
			}
		}
		let value = first.value();
		prop_assert!(value.is_ok(), "a minority stopped it: {:?}", value);
		prop_assert_eq!(value, second.value());
	}
}
