//! No unsigned call can be replayed, whatever came of it.

use frame_support::assert_noop;
use pacer_types::duty::Rejection;
use sp_runtime::{transaction_validity::InvalidTransaction, DispatchError};

use super::*;

fn stale() -> Result<(), TransactionValidityError> {
	Err(InvalidTransaction::Stale.into())
}

fn send_once(call: Call<Test>) {
	send(call.clone());
	assert_eq!(judge(&call), stale());
	next_block(1);
	assert_eq!(judge(&call), stale());
}

#[test]
fn records_should_be_stale_after_every_outcome() {
	build_and_execute(|| {
		// All rejected.
		send_once(starts(&host(0), vec![start(0, 0)]));
		send_once(results(&host(1), vec![(BatchKey { ta: host(0), number: 0 }, 0, finish())]));
		fund();
		// Accepted, partly accepted.
		send_once(starts(&host(0), vec![start(0, 0)]));
		send_once(starts(&host(0), vec![start(0, 0), start(0, 1)]));
		let view = Ledger::batch(&BatchKey { ta: host(0), number: 1 }).remove(0);
		send_once(results(&view.executor, vec![(view.batch.clone(), 0, finish()), (view.batch.clone(), 1, finish())]));
		let judge = judges(&view).remove(0);
		send_once(verdicts(&judge, vec![verdict(&view, Verdict::Pass)]));
		send_once(verdicts(&judge, vec![verdict(&view, Verdict::Pass)]));
	});
}

#[test]
fn votes_should_be_stale_after_every_outcome() {
	// Voted and open; decided by this vote; decided by another vote; decided by time; sealed meanwhile.
	build_and_execute(|| {
		fund();
		world(|w| w.serving.retain(|(who, _)| *who == host(3)));
		let first = finish_one(0);
		let second = finish_one(1);
		world(|w| w.serving = (0..5).map(|n| (host(n), 0)).collect());
		for view in [&first, &second] {
			send(verdicts(&host(1), vec![verdict(view, Verdict::Withheld)]));
		}
		let open = vote(&host(0), &first.batch, 0, false);
		send_once(open.clone());
		let late = vote(&host(2), &first.batch, 0, true);
		send_once(vote(&host(2), &first.batch, 0, false));
		assert_eq!(judge(&open), stale());
		assert_eq!(judge(&late), stale(), "the other vote of the same Host");
		let timed_out = vote(&host(0), &second.batch, 0, true);
		send(timed_out.clone());
		let never = vote(&host(2), &second.batch, 0, true);
		block_at(Ledger::open_rechecks()[0].3);
		assert_eq!(judge(&timed_out), stale());
		assert_eq!(judge(&never), stale());
		go_sealing(0);
		for call in [&open, &late, &timed_out, &never] {
			assert_eq!(judge(call), stale());
		}
	});
}

#[test]
fn records_should_be_turned_away_when_they_are_empty_or_forged() {
	build_and_execute(|| {
		fund();
		let malformed = Err(InvalidTransaction::from(Rejection::Malformed).into());
		assert_eq!(judge(&starts(&host(0), vec![])), malformed);
		assert_eq!(judge(&results(&host(0), vec![])), malformed);
		assert_eq!(judge(&verdicts(&host(0), vec![])), malformed);
		let mut forged = starts(&host(0), vec![start(0, 0)]);
		if let Call::start_many { records, .. } = &mut forged {
			records[0].max_cost_micro += 1;
		}
		assert_eq!(judge(&forged), Err(InvalidTransaction::BadProof.into()));
	});
}

#[test]
fn unsigned_calls_should_not_be_dispatched_by_a_wallet() {
	build_and_execute(|| {
		fund();
		for call in [starts(&host(0), vec![start(0, 0)]), vote(&host(0), &BatchKey { ta: host(0), number: 0 }, 0, true)] {
			for origin in [RuntimeOrigin::signed(host(0)), RuntimeOrigin::none()] {
				assert_noop!(RuntimeCall::Ledger(call.clone()).dispatch(origin).map_err(|e| e.error), DispatchError::BadOrigin);
			}
		}
	});
}
