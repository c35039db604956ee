//! Who may say what, once.

use codec::Encode;
use frame_support::{assert_ok, traits::Authorize};
use pacer_types::{
	duty::{signing_hash, CallKind, DutyHeader, Lane, Rejection},
	traits::{DutyAuth, HostRegistry},
	Phase,
};
use sp_core::Pair;
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionSource, TransactionValidityError, ValidTransaction};

use crate::{mock::*, Call};

type Judged = Result<ValidTransaction, TransactionValidityError>;

fn header(name: &str, nonce: u64) -> DutyHeader {
	DutyHeader { host: account(name), epoch: 0, nonce, valid_until: 20 }
}

fn judge(source: TransactionSource, header: &DutyHeader, lane: Lane, signer: &str) -> Judged {
	let body = 7u32;
	let signature = duty_pair(signer).sign(&signing_hash(&Hosts::genesis_hash(), header, CallKind::Commit, &body));
	Hosts::authorize_lane(source, CallKind::Commit, lane, header, &body, &signature, || Ok(()))
}

fn external(header: &DutyHeader) -> Judged {
	judge(TransactionSource::External, header, Lane::Consensus, "Alice")
}

fn custom(why: Rejection) -> Judged {
	Err(InvalidTransaction::from(why).into())
}

fn stale() -> Judged {
	Err(InvalidTransaction::Stale.into())
}

#[test]
fn lane_should_accept_each_nonce_once_and_in_order() {
	build_and_execute(|| {
		register("Alice");
		let first = external(&header("Alice", 0)).unwrap();
		let second = external(&header("Alice", 1)).unwrap();
		assert!(first.requires.is_empty());
		assert_eq!(second.requires, first.provides);
		assert_eq!(
			judge(TransactionSource::InBlock, &header("Alice", 1), Lane::Consensus, "Alice"),
			Err(InvalidTransaction::Future.into())
		);
		assert_eq!(external(&header("Alice", 8)), Err(InvalidTransaction::Future.into()));
		Hosts::mark(Lane::Consensus, &header("Alice", 0));
		assert_eq!(external(&header("Alice", 0)), stale());
		assert_eq!(judge(TransactionSource::InBlock, &header("Alice", 0), Lane::Consensus, "Alice"), stale());
		assert!(external(&header("Alice", 1)).unwrap().requires.is_empty());
		// Lanes do not wait for each other.
		assert_eq!(Hosts::next_nonce(&account("Alice"), Lane::Ledger), 0);
	});
}

#[test]
fn each_wrong_payload_should_be_rejected_with_its_own_reason() {
	build_and_execute(|| {
		register("Alice");
		register("Eve");
		assert_eq!(external(&header("Bob", 0)), custom(Rejection::UnknownHost));
		assert_eq!(external(&DutyHeader { epoch: 1, ..header("Alice", 0) }), custom(Rejection::WrongEpoch));
		assert_eq!(external(&DutyHeader { valid_until: 75, ..header("Alice", 0) }), custom(Rejection::ValidTooLong));
		assert_eq!(external(&DutyHeader { valid_until: 9, ..header("Alice", 0) }), stale());
		assert_eq!(judge(TransactionSource::External, &header("Eve", 0), Lane::Ledger, "Eve"), custom(Rejection::NoQuota));
		assert_ok!(judge(TransactionSource::External, &header("Eve", 0), Lane::Consensus, "Eve"));
		// A foreign key, and a good signature for another nonce.
		assert_eq!(
			judge(TransactionSource::External, &header("Alice", 0), Lane::Consensus, "Eve"),
			Err(InvalidTransaction::BadProof.into())
		);
		let signature =
			duty_pair("Alice").sign(&signing_hash(&Hosts::genesis_hash(), &header("Alice", 0), CallKind::Commit, &7u32));
		let moved = Hosts::authorize_lane(
			TransactionSource::External,
			CallKind::Commit,
			Lane::Consensus,
			&header("Alice", 1),
			&7u32,
			&signature,
			|| Ok(()),
		);
		assert_eq!(moved, Err(InvalidTransaction::BadProof.into()));
		set_now(1, Phase::Inference, 10);
		assert_eq!(external(&header("Alice", 0)), stale());
	});
}

#[test]
fn signature_should_not_be_checked_when_a_cheaper_check_fails() {
	build_and_execute(|| {
		register("Alice");
		let garbage = duty_pair("Eve").sign(b"something else");
		let refused = Hosts::authorize_once(CallKind::Challenge, &header("Alice", 0), &(), &(), &garbage, || {
			Err(InvalidTransaction::from(Rejection::WrongPhase).into())
		});
		assert_eq!(refused, custom(Rejection::WrongPhase));
	});
}

fn heartbeat(name: &str, signer: &str) -> Call<Test> {
	let header = header(name, 0);
	let key = node_pair(signer);
	let signature = key.sign(&signing_hash(&Hosts::genesis_hash(), &header, CallKind::Heartbeat, &()));
	Call::heartbeat { header, key: key.public(), signature }
}

fn validate(call: &Call<Test>) -> Judged {
	call.authorize(TransactionSource::External).unwrap().map(|(valid, _)| valid)
}

#[test]
fn heartbeat_should_count_once_an_epoch_and_let_the_host_race() {
	build_and_execute(|| {
		register("Alice");
		assert!(!Hosts::may_race(&account("Alice"), 0));
		let call = heartbeat("Alice", "Alice");
		let valid = validate(&call).unwrap();
		assert_eq!(valid.provides.len(), 1);
		let Call::heartbeat { header, key, signature } = call.clone() else { unreachable!() };
		assert_ok!(Hosts::heartbeat(frame_system::RawOrigin::Authorized.into(), header, key, signature));
		assert!(Hosts::may_race(&account("Alice"), 0) && !Hosts::may_race(&account("Alice"), 1));
		assert_eq!(validate(&call), stale());
	});
}

#[test]
fn heartbeat_should_be_rejected_when_the_key_is_not_the_hosts() {
	build_and_execute(|| {
		register("Alice");
		register("Bob");
		assert_eq!(validate(&heartbeat("Alice", "Bob")), custom(Rejection::NotEntitled));
		let Call::heartbeat { header, key, .. } = heartbeat("Alice", "Alice") else { unreachable!() };
		let signature = node_pair("Bob").sign(&header.encode());
		assert_eq!(validate(&Call::heartbeat { header, key, signature }), Err(InvalidTransaction::BadProof.into()));
	});
}

#[test]
fn heartbeat_should_not_be_dispatched_by_a_wallet() {
	build_and_execute(|| {
		register("Alice");
		let Call::heartbeat { header, key, signature } = heartbeat("Alice", "Alice") else { unreachable!() };
		assert!(Hosts::heartbeat(RuntimeOrigin::signed(account("Alice")), header, key, signature).is_err());
	});
}
