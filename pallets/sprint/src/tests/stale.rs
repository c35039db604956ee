//! Whatever was accepted is never accepted again, whatever came of it.

use super::lists::*;
use crate::{mock::*, Call};
use pacer_sprint::Step;
use pacer_types::{
	traits::{EpochClock, HostBonds},
	Phase, PCR,
};
use sp_runtime::traits::Dispatchable;

/// Accepts the call and asserts that its replay is stale from then on.
fn once(accepted: &mut Vec<Call<Test>>, call: Call<Test>) {
	submit(&call).unwrap();
	accepted.push(call);
	all_stale(accepted);
}

fn all_stale(accepted: &[Call<Test>]) {
	for call in accepted {
		assert_eq!(submit(call), stale(), "{call:?}");
	}
}

#[test]
fn moves_of_a_dispute_should_be_stale_after_every_outcome() {
	for outcome in ["host falls", "challenger wrong", "host silent", "challenger silent"] {
		build_and_execute(|| {
			let (lists, fake) = with_a_fake(0);
			audit(0, &lists);
			let (mut said, dave) = (Vec::new(), &lists[3]);
			once(&mut said, challenge("Alice", "Dave", fake));
			if outcome != "host silent" {
				once(&mut said, dave.answer(0, fake));
			}
			match outcome {
				"host falls" => once(&mut said, refute("Alice", 0, 0, steps(&dave.trace_at(fake)).pop().unwrap())),
				"challenger wrong" => once(&mut said, refute("Alice", 0, 0, Step::Input)),
				_ => run_to_slot(CurrentSlot::get() + 17),
			}
			assert!(disputes(0).is_empty(), "{outcome}");
			all_stale(&said);
			run_to(0, Phase::Switch);
			all_stale(&said);
			run_to(1, Phase::Audit);
			all_stale(&said);
		});
	}
}

#[test]
fn demands_and_openings_should_be_stale_after_every_outcome() {
	for posts in [true, false] {
		for with_deposit in [true, false] {
			build_and_execute(|| {
				let bob = List::made_up("Bob", 0, 300);
				audit(0, &[bob.clone()]);
				let mut said = Vec::new();
				once(&mut said, demand("Alice", "Bob", with_deposit));
				let sampled = Sprint::sampled(0, &account("Bob")).unwrap();
				let pages: Vec<&[u32]> = sampled.chunks(16).collect();
				let posted = if posts { &pages[..] } else { &pages[1..] };
				for page in posted {
					once(&mut said, bob.post(page));
				}
				run_to_slot(CurrentSlot::get() + 17);
				assert_eq!(struck(0, "Bob").is_none(), posts);
				all_stale(&said);
				run_to(1, Phase::Audit);
				all_stale(&said);
			});
		}
	}
}

#[test]
fn challenge_and_demand_should_be_stale_when_their_deposit_could_not_be_locked() {
	build_and_execute(|| {
		audit(0, &[List::made_up("Bob", 0, 300)]);
		let calls = [challenge("Alice", "Bob", 3), demand("Alice", "Bob", true)];
		// Between validation and dispatch nothing can happen on chain; dispatch alone must still be safe.
		Hosts::lock(&account("Alice"), 995 * PCR).unwrap();
		for call in calls.clone() {
			RuntimeCall::from(call).dispatch(frame_system::RawOrigin::Authorized.into()).unwrap();
		}
		assert!(disputes(0).is_empty() && demand_on("Bob").is_none());
		Hosts::release(&account("Alice"), 995 * PCR);
		all_stale(&calls);
		assert_eq!(Sprint::phase(), Phase::Audit);
	});
}
