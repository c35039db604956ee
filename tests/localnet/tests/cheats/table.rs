//! The cheats that rest on a list, one rogue each.

use anyhow::ensure;
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
	/// What must become of its count.
	pub fate: Fate,
}

/// What becomes of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
	/// It stands: it is no cheat.
	Stands,
	/// It is struck before Switch.
	Falls(Strike),
	/// The same if the sample hits what is invented; else a proof is found after Switch.
	Sleeps,
}

/// Appropriate nonces of the usual small list.
const FEW: usize = 7;
/// Found and invented nonces of the list that is much longer than its sample.
const MANY: (usize, usize) = (280, 120);
/// Nonces of the lists whose one fake is likely to be missed: nine times in ten.
const SLEEPY: usize = 640;
/// Nonces that rented hardware finds.
const RENTED: usize = 1_000;
/// Who rents hardware for one race.
pub const TENANT: &str = "Tenant";
/// Who claims a list much longer than its sample.
pub const GAMBLER: &str = "Gambler";
/// Whose nonces are stolen.
pub const VICTIM: &str = "Alice";

/// `found` appropriate nonces, and `invented` ones spread among them: nonces that the search passed over.
fn with_fakes(race: &RaceOf, host: &[u8; 32], found: usize, invented: usize) -> anyhow::Result<Claim> {
	let found = race.good(host, 0, found)?;
	let passed_over: Vec<u64> = found.windows(2).filter(|pair| pair[0] + 1 < pair[1]).map(|pair| pair[0] + 1).collect();
	ensure!(passed_over.len() >= invented, "{} nonces are too close to each other", found.len());
	let every = passed_over.len() / invented.max(1);
	let invented: Vec<u64> = passed_over.into_iter().skip(every / 2).step_by(every.max(1)).take(invented).collect();
	Ok(Claim::mixed(found, &invented))
}

/// `n` appropriate nonces and one in their middle that is not.
fn with_a_fake(race: &RaceOf, host: &[u8; 32], n: usize) -> anyhow::Result<Claim> {
	with_fakes(race, host, n, 1)
}

/// A list with one fake that the sample hardly hits.
fn sleepy(race: &RaceOf, host: &[u8; 32]) -> anyhow::Result<Claim> {
	with_a_fake(race, host, SLEEPY)
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
	let tree = Forged::build(nonces.iter().copied().map(Some).chain(missing).collect());
	Ok(Claim { tree, ..Claim::of(nonces) })
}

/// The cheats. Lists of 64 nonces or fewer are sampled whole; four are longer.
pub fn cheats() -> Vec<Cheat> {
	use Answering::{Silence, Truth, WrongInput, WrongLayer};
	use Fate::{Falls, Sleeps, Stands};
	use Posting::{Nothing, WhatOpens};
	use Strike::{Input, Layer, Output, Silent, Withheld};
	let cheat = |rogue, what, list, answering, posting, to, fate| Cheat { rogue, what, list, answering, posting, to, fate };
	vec![
		cheat(
			"Inventor",
			"one invented nonce among many, right hashes",
			|race, host| with_a_fake(race, host, 23),
			Truth,
			WhatOpens,
			To::All,
			Falls(Output),
		),
		cheat(
			"Bender",
			"the same, with a wrong hash of layer 2",
			|race, host| with_a_fake(race, host, FEW),
			WrongLayer(2),
			WhatOpens,
			To::All,
			Falls(Layer),
		),
		cheat(
			"Feeder",
			"the same, with a wrong hash of the input",
			|race, host| with_a_fake(race, host, FEW),
			WrongInput,
			WhatOpens,
			To::All,
			Falls(Input),
		),
		cheat("Echo", "its list twice", twice, Truth, WhatOpens, To::All, Falls(Withheld)),
		cheat("Weaver", "two lists interleaved", interleaved, Truth, WhatOpens, To::All, Falls(Withheld)),
		cheat("Thief", "another Host's nonces", stolen, Truth, WhatOpens, To::All, Falls(Output)),
		cheat("Relic", "nonces of another seed", outdated, Truth, WhatOpens, To::All, Falls(Output)),
		cheat("Boaster", "a count of twice its list", boasted, Truth, WhatOpens, To::All, Falls(Withheld)),
		cheat("Hermit", "a list withheld from all", true_list, Truth, Nothing, To::Nobody, Falls(Withheld)),
		cheat("Snob", "a list withheld from Dave", true_list, Truth, Nothing, To::AllBut("Dave"), Falls(Withheld)),
		cheat(
			"Mute",
			"a fake, and silence in the dispute",
			|race, host| with_a_fake(race, host, FEW),
			Silence,
			WhatOpens,
			To::All,
			Falls(Silent),
		),
		cheat(
			"Shielded",
			"a fake, disputed by an accomplice that gives in",
			|race, host| with_a_fake(race, host, FEW),
			Truth,
			WhatOpens,
			To::All,
			Falls(Output),
		),
		cheat(
			"Newcomer",
			"nothing but fakes",
			|race, host| Ok(Claim::of(race.bad(host, 0, 64)?)),
			Truth,
			WhatOpens,
			To::All,
			Falls(Output),
		),
		cheat(
			GAMBLER,
			"400 nonces, three in ten invented",
			|race, host| with_fakes(race, host, MANY.0, MANY.1),
			Truth,
			WhatOpens,
			To::All,
			Falls(Output),
		),
		cheat("Sleeper1", "one fake among 641, shown to nobody", sleepy, Truth, WhatOpens, To::Nobody, Sleeps),
		cheat("Sleeper2", "the same once more", sleepy, Truth, WhatOpens, To::Nobody, Sleeps),
		cheat(
			TENANT,
			"no cheat: hardware rented for one race",
			|race, host| Ok(Claim::of(race.good(host, 0, RENTED)?)),
			Truth,
			WhatOpens,
			To::All,
			Stands,
		),
		cheat("Scribe", "no cheat: a true list, posted and not served", true_list, Truth, WhatOpens, To::Nobody, Stands),
	]
}
