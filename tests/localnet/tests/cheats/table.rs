//! The cheats that rest on a list, one rogue each.

use pacer_localnet::rogue::{Answering, Claim, Forged, Posting, RaceOf};
use pallet_sprint::Strike;

/// Who gets a rogue's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
	/// Everybody.
	All,
	/// Nobody.
	Nobody,
	/// Everybody but this Host's agent.
	AllBut(&'static str),
}

/// A way to claim more than one found.
pub struct Cheat {
	/// The rogue that tries it.
	pub rogue: &'static str,
	/// What it does, for people.
	pub what: &'static str,
	/// Makes its list: of the race, for this account.
	pub list: fn(&RaceOf, &[u8; 32]) -> anyhow::Result<Claim>,
	/// How it answers disputes.
	pub answering: Answering,
	/// How it meets demands.
	pub posting: Posting,
	/// Who gets its list.
	pub to: To,
	/// What must strike its count; nothing if it is no cheat.
	pub struck: Option<Strike>,
}

/// Appropriate nonces of the usual small list.
const FEW: usize = 7;
/// Whose nonces are stolen.
pub const VICTIM: &str = "Alice";

/// `n` appropriate nonces and one in their middle that is not.
fn with_a_fake(race: &RaceOf, host: &[u8; 32], n: usize) -> anyhow::Result<Claim> {
	let mut nonces = race.good(host, 0, n)?;
	let middle = nonces[n / 2];
	nonces.extend(race.bad(host, middle + 1, 1)?);
	nonces.sort_unstable();
	nonces.dedup();
	Ok(Claim::of(nonces))
}

/// A list that is all right.
fn true_list(race: &RaceOf, host: &[u8; 32]) -> anyhow::Result<Claim> {
	Ok(Claim::of(race.good(host, 0, FEW)?))
}

/// The nonces of a list, once more behind it.
fn twice(race: &RaceOf, host: &[u8; 32]) -> anyhow::Result<Claim> {
	let nonces = race.good(host, 0, FEW)?;
	Ok(Claim::of([nonces.clone(), nonces].concat()))
}

/// Two lists from different ranges, a nonce of each in turn.
fn interleaved(race: &RaceOf, host: &[u8; 32]) -> anyhow::Result<Claim> {
	let (low, high) = (race.good(host, 0, FEW)?, race.good(host, 1 << 40, FEW)?);
	Ok(Claim::of(low.into_iter().zip(high).flat_map(|(a, b)| [a, b]).collect()))
}

/// Another Host's nonces.
fn stolen(race: &RaceOf, _: &[u8; 32]) -> anyhow::Result<Claim> {
	let victim = pacer_localnet::host::Identity { name: VICTIM.into() }.account();
	Ok(Claim::of(race.good(victim.as_ref(), 0, 2 * FEW)?))
}

/// Nonces of another seed, as one of an earlier race would be.
fn outdated(race: &RaceOf, host: &[u8; 32]) -> anyhow::Result<Claim> {
	let earlier = race.with_seed(sp_crypto_hashing::blake2_256(b"an earlier race"));
	Ok(Claim::of(earlier.good(host, 0, 2 * FEW)?))
}

/// A count of twice the list.
fn boasted(race: &RaceOf, host: &[u8; 32]) -> anyhow::Result<Claim> {
	let nonces = race.good(host, 0, FEW)?;
	let missing = std::iter::repeat_n(None, nonces.len());
	Ok(Claim { tree: Forged::build(nonces.iter().copied().map(Some).chain(missing).collect()), served: nonces })
}

/// The cheats. Every list is short enough that the sample is all of it.
pub fn cheats() -> Vec<Cheat> {
	use Answering::{Silence, Truth, WrongInput, WrongLayer};
	use Posting::{Nothing, WhatOpens};
	use Strike::{Input, Layer, Output, Silent, Withheld};
	let cheat = |rogue, what, list, answering, posting, to, struck| Cheat { rogue, what, list, answering, posting, to, struck };
	vec![
		cheat(
			"Inventor",
			"one invented nonce among many, right hashes",
			|race, host| with_a_fake(race, host, 23),
			Truth,
			WhatOpens,
			To::All,
			Some(Output),
		),
		cheat(
			"Bender",
			"the same, with a wrong hash of layer 2",
			|race, host| with_a_fake(race, host, FEW),
			WrongLayer(2),
			WhatOpens,
			To::All,
			Some(Layer),
		),
		cheat(
			"Feeder",
			"the same, with a wrong hash of the input",
			|race, host| with_a_fake(race, host, FEW),
			WrongInput,
			WhatOpens,
			To::All,
			Some(Input),
		),
		cheat("Echo", "its list twice", twice, Truth, WhatOpens, To::All, Some(Withheld)),
		cheat("Weaver", "two lists interleaved", interleaved, Truth, WhatOpens, To::All, Some(Withheld)),
		cheat("Thief", "another Host's nonces", stolen, Truth, WhatOpens, To::All, Some(Output)),
		cheat("Relic", "nonces of another seed", outdated, Truth, WhatOpens, To::All, Some(Output)),
		cheat("Boaster", "a count of twice its list", boasted, Truth, WhatOpens, To::All, Some(Withheld)),
		cheat("Hermit", "a list withheld from all", true_list, Truth, Nothing, To::Nobody, Some(Withheld)),
		cheat("Snob", "a list withheld from Dave", true_list, Truth, Nothing, To::AllBut("Dave"), Some(Withheld)),
		cheat(
			"Mute",
			"a fake, and silence in the dispute",
			|race, host| with_a_fake(race, host, FEW),
			Silence,
			WhatOpens,
			To::All,
			Some(Silent),
		),
		cheat(
			"Shielded",
			"a fake, disputed by an accomplice that gives in",
			|race, host| with_a_fake(race, host, FEW),
			Truth,
			WhatOpens,
			To::All,
			Some(Output),
		),
		cheat(
			"Newcomer",
			"nothing but fakes",
			|race, host| Ok(Claim::of(race.bad(host, 0, 64)?)),
			Truth,
			WhatOpens,
			To::All,
			Some(Output),
		),
		cheat("Scribe", "no cheat: a true list, posted and not served", true_list, Truth, WhatOpens, To::Nobody, None),
	]
}
