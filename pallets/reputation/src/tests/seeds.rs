//! Revealing the duty seed.

use frame_support::{assert_ok, traits::Authorize};
use pacer_types::{
	duty::{signing_hash, CallKind, DutyHeader, Rejection},
	traits::{Ineligible, Standing},
	AccountId, EpochIndex, Phase,
};
use sp_core::Pair;
use sp_runtime::{
	traits::Dispatchable,
	transaction_validity::{InvalidTransaction, TransactionSource, TransactionValidityError},
};

use crate::mock::*;

fn call(signer: &AccountId, host: &AccountId, epoch: EpochIndex, pre_output: [u8; 32], proof: [u8; 64]) -> RuntimeCall {
	let header = DutyHeader { host: host.clone(), epoch, nonce: 0, valid_until: 10_000 };
	let hash = signing_hash(&genesis(), &header, CallKind::RevealDutySeed, &(pre_output, proof));
	let signature = key(signer).sign(&hash);
	RuntimeCall::Reputation(crate::Call::reveal_duty_seed { header, pre_output, proof, signature })
}

fn reveal(host: &AccountId, epoch: EpochIndex) -> RuntimeCall {
	let proven = seed(host, epoch);
	call(host, host, epoch, proven.pre_output, proven.proof)
}

fn judge(call: &RuntimeCall) -> Result<(), TransactionValidityError> {
	call.authorize(TransactionSource::External).unwrap().map(|_| ())
}

fn submit(call: RuntimeCall) -> Result<(), TransactionValidityError> {
	judge(&call)?;
	assert_ok!(call.dispatch(frame_system::RawOrigin::Authorized.into()));
	Ok(())
}

fn custom(why: Rejection) -> Result<(), TransactionValidityError> {
	Err(InvalidTransaction::from(why).into())
}

/// Host 1 in the Audit of epoch 3, whose race value was opened in epoch 2.
fn in_audit<R>(test: impl FnOnce(AccountId) -> R) -> R {
	in_world(2, || {
		world(|w| w.race_values.insert(2, [5; 32]));
		at(3, Phase::Audit);
		test(account(1))
	})
}

#[test]
fn seed_should_be_stored_when_it_is_proven() {
	in_audit(|host| {
		assert_eq!(Reputation::duty_seed(3, &host), None);
		assert_ok!(submit(reveal(&host, 3)));
		assert_eq!(Reputation::duty_seed(3, &host), Some(seed(&host, 3).seed));
		let event = crate::Event::DutySeedRevealed { epoch: 3, host: host.clone(), seed: seed(&host, 3).seed };
		System::assert_last_event(event.into());
	});
}

#[test]
fn reveal_should_be_stale_when_it_already_happened() {
	in_audit(|host| {
		let first = reveal(&host, 3);
		assert_ok!(submit(first.clone()));
		assert_eq!(judge(&first), Err(InvalidTransaction::Stale.into()));
		// Another proof of the same seed, for proofs are randomised.
		assert_eq!(judge(&reveal(&host, 3)), Err(InvalidTransaction::Stale.into()));
		at(3, Phase::Switch);
		assert_eq!(judge(&first), Err(InvalidTransaction::Stale.into()));
		at(4, Phase::Audit);
		assert_eq!(judge(&first), Err(InvalidTransaction::Stale.into()));
	});
}

#[test]
fn reveal_should_be_refused_when_it_is_not_audit() {
	in_audit(|host| {
		let call = reveal(&host, 3);
		for phase in Phase::ALL.into_iter().filter(|phase| *phase != Phase::Audit) {
			at(3, phase);
			assert_eq!(judge(&call), custom(Rejection::WrongPhase));
		}
	});
}

#[test]
fn reveal_should_be_refused_when_the_host_has_no_weight() {
	in_audit(|_| {
		let newcomer = account(9);
		world(|w| w.hosts.insert(newcomer.clone()));
		assert_eq!(judge(&reveal(&newcomer, 3)), custom(Rejection::NotEntitled));
		assert_eq!(judge(&reveal(&account(10), 3)), custom(Rejection::UnknownHost));
	});
}

#[test]
fn reveal_should_be_refused_when_no_race_led_to_the_epoch() {
	in_audit(|host| {
		let call = reveal(&host, 3);
		world(|w| w.race_values.clear());
		assert_eq!(judge(&call), custom(Rejection::UnknownSubject));
		assert!(!Reputation::owes_seed(3, &host));
		at(0, Phase::Audit);
		assert!(!Reputation::owes_seed(0, &host));
	});
}

#[test]
fn reveal_should_be_refused_when_signature_or_proof_are_wrong() {
	in_audit(|host| {
		let mine = seed(&host, 3);
		let theirs = seed(&account(2), 3);
		let bad = Err(InvalidTransaction::BadProof.into());
		assert_eq!(judge(&call(&account(2), &host, 3, mine.pre_output, mine.proof)), bad, "a foreign duty key");
		assert_eq!(judge(&call(&host, &host, 3, theirs.pre_output, theirs.proof)), bad, "a foreign seed");
		assert_eq!(judge(&call(&host, &host, 3, mine.pre_output, theirs.proof)), bad, "a foreign proof");
		assert_eq!(judge(&call(&host, &host, 3, [255; 32], mine.proof)), bad, "no point");
		world(|w| w.race_values.insert(3, [5; 32]));
		let next = seed(&host, 4);
		assert_eq!(judge(&call(&host, &host, 3, next.pre_output, next.proof)), bad, "the seed of another epoch");
	});
}

#[test]
fn host_should_be_ineligible_when_it_owes_its_seed() {
	in_audit(|host| {
		assert_ok!(submit(reveal(&host, 3)));
		switch(3, &[account(1), account(2)], &[]);
		assert_eq!(Reputation::eligible(3, &host), Ok(()));
		assert_eq!(Reputation::eligible(3, &account(2)), Err(Ineligible::SeedNotRevealed));
		assert_eq!((Reputation::reputation(&host), Reputation::reputation(&account(2))), (1, 0));
	});
}
