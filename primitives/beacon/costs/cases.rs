// What is timed, natively by `examples/costs.rs` and in WASM by `costs/guest`: every step of an epoch for a committee of
// 64 members with two slots each (or fewer members with more).

use alloc::vec::Vec;
use pacer_beacon::*;

#[path = "names.rs"]
pub mod names;

const CONTEXT: Context = Context { genesis: [7; 32], epoch: 3, which: Which::Race };

/// Everything that the cases start from.
pub struct Cases {
	seats: Vec<Seat>,
	committee: Committee,
	secret: SecretKey,
	proof: KeyProof,
	dealing: Vec<u8>,
	sum: Vec<u8>,
	opening: Vec<u8>,
	shares: Vec<(u32, [u8; 32])>,
	set: Vec<(Host, [u8; 32])>,
	weights: Vec<(Host, u64)>,
}

fn host(index: u32) -> Host {
	let mut host = [0x5a; 32];
	host[..4].copy_from_slice(&(index + 1).to_be_bytes());
	host
}

impl Cases {
	/// Prepares a committee of `members`, which must divide the number of slots.
	pub fn new(members: u32) -> Result<Self, Error> {
		let secrets: Vec<SecretKey> =
			(0..members).map(|i| SecretKey::from_seed(&[i as u8; 32], &CONTEXT.genesis, CONTEXT.epoch, &host(i))).collect();
		let seats: Vec<Seat> = secrets
			.iter()
			.enumerate()
			.map(|(i, secret)| Seat { host: host(i as u32), slots: SLOTS / members, key: Some(secret.public()) })
			.collect();
		let committee = Committee::new(seats.clone(), THRESHOLD)?;
		let dealing = CONTEXT.deal(&committee, &host(0), &[9; 32])?;
		let mut sum = Sum::new(SLOTS);
		// Twice, so that no point of the sum is the identity and none is one of the dealing's.
		sum.add(&dealing)?;
		sum.add(&dealing)?;
		let mut shares = Vec::new();
		let mut opening = Vec::new();
		for (i, secret) in secrets.iter().enumerate() {
			let opened = CONTEXT.open(&committee, &sum, &host(i as u32), secret)?;
			let slots = committee.slots_of(&host(i as u32)).ok_or(Error::NotAMember)?;
			shares.extend(slots.zip(opened.shares()));
			if i == 0 {
				opening = opened.encode();
			}
			if shares.len() >= THRESHOLD as usize {
				break;
			}
		}
		let secret = SecretKey::from_seed(&[0; 32], &CONTEXT.genesis, CONTEXT.epoch, &host(0));
		let proof = secret.prove(&CONTEXT.genesis, CONTEXT.epoch, &host(0));
		let set = (0..members).map(|i| (host(i), [i as u8; 32])).collect();
		let weights = (0..members).map(|i| (host(i), 1_000 + u64::from(i) * 77)).collect();
		let (dealing, sum) = (dealing.encode(), sum.encode());
		Ok(Self { seats, committee, secret, proof, dealing, sum, opening, shares, set, weights })
	}

	/// Bytes of a dealing and of an opening.
	pub fn sizes(&self) -> (usize, usize) {
		(self.dealing.len(), self.opening.len())
	}

	/// Runs a case once; a byte of its result, so that nothing is optimised away.
	pub fn run(&self, case: u32) -> Result<u8, Error> {
		let slots = self.seats.first().map_or(0, |seat| seat.slots);
		Ok(match case {
			0 => Committee::new(self.seats.clone(), THRESHOLD)?.digest()[0],
			1 => {
				verify_key(&CONTEXT.genesis, CONTEXT.epoch, &host(0), &self.secret.public(), &self.proof)?;
				1
			}
			2 => CONTEXT.deal(&self.committee, &host(0), &[9; 32])?.hash()[0],
			3 => Dealing::decode(&self.dealing, SLOTS, THRESHOLD)?.hash()[0],
			4 => {
				let dealing = Dealing::decode(&self.dealing, SLOTS, THRESHOLD)?;
				CONTEXT.verify_dealing(&self.committee, &host(0), &dealing)?;
				1
			}
			5 => {
				let dealing = Dealing::decode(&self.dealing, SLOTS, THRESHOLD)?;
				let mut sum = Sum::decode(&self.sum, SLOTS)?;
				sum.add(&dealing)?;
				sum.encode()[0]
			}
			6 => CONTEXT.open(&self.committee, &Sum::decode(&self.sum, SLOTS)?, &host(0), &self.secret)?.encode()[0],
			7 => {
				let opening = Opening::decode(&self.opening, slots)?;
				CONTEXT.verify_opening(&self.committee, &Sum::decode(&self.sum, SLOTS)?, &host(0), &opening)?;
				1
			}
			8 => interpolate(&self.shares, THRESHOLD)?[0],
			9 => CONTEXT.value(&self.set, &[0; 32])?[0],
			_ => seats(&self.weights, SLOTS).len() as u8,
		})
	}
}
