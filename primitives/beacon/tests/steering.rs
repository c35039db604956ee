//! Whether anybody can push the value where it wants: the distribution of the first bit under strategies of a minority.
//!
//! Each strategy plays thousands of epochs. The share of values that begin with a one must stay within four standard
//! deviations of a half (a fair beacon leaves that interval once in 15,000 runs; the seeds are fixed, so it passes
//! always or never). The same strategy with a threshold's worth of slots serves as control: it wins nearly always, so
//! the measurement would notice.
#![allow(missing_docs)]

mod common;

use common::*;
use pacer_beacon::*;

/// Members: two honest ones and the attacker, one slot each.
const ATTACKER: usize = 2;
const CANDIDATES: u64 = 4;

/// What an attacker sees when all others have dealt.
struct View<'a> {
	context: Context,
	committee: &'a Committee,
	members: &'a [Member],
	honest: &'a [(Host, Dealing)],
}

impl View<'_> {
	/// The first of the attacker's candidates that it likes; none of them makes it silent.
	fn first(&self, likes: impl Fn(&Dealt) -> bool) -> Option<Dealing> {
		let host = &self.members[ATTACKER].host;
		let mut candidates =
			(1..=CANDIDATES).map(|n| self.context.deal(self.committee, host, &Rng(n).bytes()).expect("a member"));
		candidates.find(|dealing| likes(&self.outcome(Some(dealing))))
	}

	/// The sum and the set if the attacker deals `choice`, or nothing.
	fn outcome(&self, choice: Option<&Dealing>) -> Dealt {
		let mut sum = Sum::new(self.committee.live_slots());
		let own = choice.map(|dealing| (self.members[ATTACKER].host, dealing.clone()));
		let mut set = Vec::new();
		for (host, dealing) in self.honest.iter().chain(&own) {
			sum.add(dealing).expect("fits");
			set.push((*host, dealing.hash()));
		}
		set.sort_unstable();
		Dealt { sum, set }
	}

	fn value(&self, dealt: &Dealt, openers: &[usize]) -> Value {
		let openers: Vec<&Member> = openers.iter().map(|at| &self.members[*at]).collect();
		let mut shares = Vec::new();
		for opener in openers {
			let opening = self.context.open(self.committee, &dealt.sum, &opener.host, &opener.secret).expect("a member");
			shares.extend(self.committee.slots_of(&opener.host).expect("a member").zip(opening.shares()));
		}
		let secret = interpolate(&shares, self.committee.threshold()).expect("enough");
		self.context.value(&dealt.set, &secret).expect("a set")
	}
}

/// Plays `epochs` with a strategy that picks a candidate (or none), and counts values whose first bit is one.
fn ones(epochs: u32, threshold: u32, strategy: impl Fn(&View) -> Option<Dealing> + Sync) -> u32 {
	let play = |range: std::ops::Range<u32>| -> u32 {
		range
			.map(|epoch| {
				let context = Context { epoch, ..CONTEXT };
				let (committee, members) = committee_in(&context, &[1, 1, 1], &[], threshold);
				let honest = deal(&context, &committee, &[&members[0]]);
				let view = View { context, committee: &committee, members: &members, honest: &honest };
				let choice = strategy(&view);
				let dealt = view.outcome(choice.as_ref());
				let openers: Vec<usize> = (0..threshold as usize).collect();
				u32::from(view.value(&dealt, &openers)[0] >> 7)
			})
			.sum()
	};
	std::thread::scope(|scope| {
		let other = scope.spawn(|| play(0..epochs / 2));
		play(epochs / 2..epochs) + other.join().expect("no panic")
	})
}

/// Within four standard deviations of a half: |ones - n/2| <= 4 sqrt(n)/2.
fn is_fair(ones: u32, epochs: u32) -> bool {
	let off = (i64::from(ones) * 2 - i64::from(epochs)).unsigned_abs();
	off * off <= 16 * u64::from(epochs)
}

const EPOCHS: u32 = 2_000;

#[test]
fn first_bit_should_stay_fair_when_a_rushing_dealer_picks_by_all_that_is_public() {
	// It wants ones, and takes the candidate whose public outcome (sum and set, but no secret sum) hashes to a one.
	let ones = ones(EPOCHS, 2, |view| {
		view.first(|dealt| {
			let guess = view.context.value(&dealt.set, dealt.sum.encode()[..32].try_into().expect("a point"));
			guess.expect("a set")[0] >> 7 == 1
		})
	});
	println!("rushing by public data: {ones} ones in {EPOCHS} epochs");
	assert!(is_fair(ones, EPOCHS));
}

#[test]
fn first_bit_should_stay_fair_when_a_rushing_dealer_uses_its_own_share() {
	// t - 1 shares: it decrypts its own slot of the sum before anybody opens, and picks by what that would give.
	let ones = ones(EPOCHS, 2, |view| {
		view.first(|dealt| {
			let attacker = &view.members[ATTACKER];
			let own = view.context.open(view.committee, &dealt.sum, &attacker.host, &attacker.secret).expect("a member");
			let share = own.shares().next().expect("one slot");
			view.context.value(&dealt.set, &share).expect("a set")[0] >> 7 == 1
		})
	});
	println!("rushing by own share: {ones} ones in {EPOCHS} epochs");
	assert!(is_fair(ones, EPOCHS));
}

#[test]
fn first_bit_should_stay_fair_when_a_dealer_is_silent_at_will() {
	let ones = ones(EPOCHS, 2, |view| match view.honest[0].1.hash()[0] & 1 {
		0 => view.first(|_| true),
		_ => None,
	});
	println!("silent at will: {ones} ones in {EPOCHS} epochs");
	assert!(is_fair(ones, EPOCHS));
}

/// Control: whoever can open alone does choose. With four candidates and silence it fails once in 32 epochs.
#[test]
fn first_bit_should_be_chosen_when_the_attacker_owns_a_threshold_of_slots() {
	let epochs = EPOCHS / 4;
	let ones = ones(epochs, 1, |view| view.first(|dealt| view.value(dealt, &[ATTACKER])[0] >> 7 == 1));
	println!("control, opening alone: {ones} ones in {epochs} epochs");
	assert!(!is_fair(ones, epochs));
	assert!(ones > epochs * 9 / 10);
}
