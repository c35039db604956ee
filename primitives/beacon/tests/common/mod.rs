//! Committees and whole epochs for tests.
#![allow(dead_code, missing_docs)]

use pacer_beacon::*;

pub const GENESIS: [u8; 32] = [7; 32];
pub const CONTEXT: Context = Context { genesis: GENESIS, epoch: 3, which: Which::Race };

/// So many cases; failures are printed, not written into the tree.
pub fn cases(cases: u32) -> proptest::test_runner::Config {
	proptest::test_runner::Config { cases, failure_persistence: None, ..Default::default() }
}

/// One member with all that its node keeps.
pub struct Member {
	pub host: Host,
	pub seed: [u8; 32],
	pub secret: SecretKey,
}

/// The account of member `index`; ascending with the index.
pub fn host(index: usize) -> Host {
	let mut host = [0x5a; 32];
	host[..8].copy_from_slice(&(index as u64 + 1).to_be_bytes());
	host
}

/// The node seed of member `index`.
pub fn seed(index: usize) -> [u8; 32] {
	let mut seed = [0xc3; 32];
	seed[8..16].copy_from_slice(&(index as u64).to_le_bytes());
	seed
}

pub fn member(index: usize) -> Member {
	member_in(&CONTEXT, index)
}

pub fn member_in(context: &Context, index: usize) -> Member {
	let (host, seed) = (host(index), seed(index));
	let secret = SecretKey::from_seed(&seed, &context.genesis, context.epoch, &host);
	Member { host, seed, secret }
}

/// A committee of members with these numbers of slots; those in `silent` registered no key.
pub fn committee_with(slots: &[u32], silent: &[usize], threshold: u32) -> (Committee, Vec<Member>) {
	committee_in(&CONTEXT, slots, silent, threshold)
}

pub fn committee_in(context: &Context, slots: &[u32], silent: &[usize], threshold: u32) -> (Committee, Vec<Member>) {
	let members: Vec<Member> = (0..slots.len()).map(|index| member_in(context, index)).collect();
	let seats = members.iter().enumerate().filter(|(index, _)| slots[*index] > 0).map(|(index, member)| Seat {
		host: member.host,
		slots: slots[index],
		key: (!silent.contains(&index)).then(|| member.secret.public()),
	});
	(Committee::new(seats.collect(), threshold).expect("a good committee"), members)
}

pub fn committee(slots: &[u32], threshold: u32) -> (Committee, Vec<Member>) {
	committee_with(slots, &[], threshold)
}

/// What the chain keeps of an epoch's dealings: the sum and the set.
pub struct Dealt {
	pub sum: Sum,
	pub set: Vec<(Host, [u8; 32])>,
}

/// Verifies and adds dealings in the order given.
pub fn collect(context: &Context, committee: &Committee, dealings: &[(Host, Dealing)]) -> Dealt {
	let mut sum = Sum::new(committee.live_slots());
	let mut set = Vec::new();
	for (dealer, dealing) in dealings {
		context.verify_dealing(committee, dealer, dealing).expect("a true dealing");
		sum.add(dealing).expect("of this committee");
		set.push((*dealer, dealing.hash()));
	}
	set.sort_unstable();
	Dealt { sum, set }
}

pub fn deal(context: &Context, committee: &Committee, members: &[&Member]) -> Vec<(Host, Dealing)> {
	members.iter().map(|m| (m.host, context.deal(committee, &m.host, &m.seed).expect("a member"))).collect()
}

/// Verified shares (slot, share) of these members, in this order.
pub fn open(context: &Context, committee: &Committee, sum: &Sum, openers: &[&Member]) -> Vec<(u32, [u8; 32])> {
	let mut shares = Vec::new();
	for opener in openers {
		let opening = context.open(committee, sum, &opener.host, &opener.secret).expect("a member");
		context.verify_opening(committee, sum, &opener.host, &opening).expect("a true opening");
		shares.extend(committee.slots_of(&opener.host).expect("a member").zip(opening.shares()));
	}
	shares
}

/// A whole value: all deal, all open.
pub fn value(context: &Context, committee: &Committee, members: &[&Member]) -> Value {
	let dealt = collect(context, committee, &deal(context, committee, members));
	let shares = open(context, committee, &dealt.sum, members);
	let secret = interpolate(&shares, committee.threshold()).expect("enough shares");
	context.value(&dealt.set, &secret).expect("a good set")
}

/// A small deterministic generator (splitmix64), so that tests need no other crate.
pub struct Rng(pub u64);

impl Rng {
	pub fn next(&mut self) -> u64 {
		self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
		let mut z = self.0;
		z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
		z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
		z ^ (z >> 31)
	}

	/// Below `bound`.
	pub fn below(&mut self, bound: usize) -> usize {
		(self.next() % bound as u64) as usize
	}

	pub fn shuffle<T>(&mut self, items: &mut [T]) {
		for i in (1..items.len()).rev() {
			items.swap(i, self.below(i + 1));
		}
	}

	pub fn bytes(&mut self) -> [u8; 32] {
		let mut bytes = [0; 32];
		bytes.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()));
		bytes
	}
}
