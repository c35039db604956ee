//! Settlement: eligibility, reputation, pages, forgetting and pruning.

use pacer_types::{
	traits::{Ineligible, OnEpoch, Standing, WorkCounts},
	AccountId, Phase,
};

use crate::{mock::*, Accuracies, Decisions, Event, Seeds, Settling, Standings, ABSENCE_EPOCHS, PAGE_HOSTS, REPUTATION_CAP};

fn hosts(numbers: impl IntoIterator<Item = u32>) -> Vec<AccountId> {
	numbers.into_iter().map(account).collect()
}

fn did(epoch: u32, who: u32, counts: WorkCounts) {
	world(|w| w.counts.insert((epoch, account(who)), counts));
}

#[test]
fn reputation_should_grow_by_one_an_epoch_to_the_cap() {
	in_world(1, || {
		for epoch in 0..REPUTATION_CAP + 5 {
			switch(epoch, &hosts([1]), &[]);
			assert_eq!(Reputation::reputation(&account(1)), (epoch + 1).min(REPUTATION_CAP));
		}
	});
}

#[test]
fn reputation_should_stay_when_the_host_is_absent() {
	in_world(1, || {
		for epoch in 0..3 {
			switch(epoch, &hosts([1]), &[]);
		}
		for epoch in 3..3 + ABSENCE_EPOCHS - 1 {
			switch(epoch, &[], &[]);
			assert_eq!(Reputation::reputation(&account(1)), 3);
		}
		switch(2 + ABSENCE_EPOCHS, &[], &[]);
		assert_eq!(Reputation::reputation(&account(1)), 0);
		assert_eq!(Standings::<Test>::iter().count(), 0);
		System::assert_has_event(Event::Forgotten { host: account(1) }.into());
	});
}

#[test]
fn reputation_should_stay_when_the_host_raced_but_is_not_eligible() {
	in_world(1, || {
		switch(0, &hosts([1]), &[]);
		did(1, 1, WorkCounts { assigned: 10, missed: 5, ..Default::default() });
		switch(1, &hosts([1]), &[]);
		assert_eq!(Reputation::reputation(&account(1)), 1);
		assert_eq!(Standings::<Test>::get(account(1)).unwrap().last_raced, 1);
	});
}

#[test]
fn host_should_lose_reputation_and_earnings_when_it_is_caught_in_the_race() {
	in_world(2, || {
		switch(0, &hosts([1, 2]), &[]);
		switch(1, &hosts([1, 2]), &hosts([2]));
		assert_eq!((Reputation::reputation(&account(1)), Reputation::reputation(&account(2))), (2, 0));
		assert_eq!(Reputation::eligible(1, &account(2)), Err(Ineligible::Excluded));
	});
}

#[test]
fn newcomer_should_gain_reputation_when_it_raced_without_weight() {
	in_world(0, || {
		world(|w| w.race_values.insert(0, [1; 32]));
		switch(1, &hosts([7]), &[]);
		assert_eq!(Reputation::reputation(&account(7)), 1);
		assert_eq!(Reputation::eligible(1, &account(7)), Ok(()), "it owed no work and no seed");
	});
}

#[test]
fn eligibility_should_follow_the_binomial_tests() {
	in_world(6, || {
		let none = WorkCounts::default();
		did(0, 1, WorkCounts { assigned: 10, missed: 4, ..none });
		did(0, 2, WorkCounts { assigned: 10, missed: 5, ..none });
		did(0, 3, WorkCounts { assigned: 9, missed: 9, ..none });
		did(0, 4, WorkCounts { verified: 6, missed_duties: 4, ..none });
		did(0, 5, WorkCounts { verified: 5, missed_duties: 5, ..none });
		switch(0, &hosts(1..=6), &[]);
		let judged: Vec<_> = (1..=6).map(|n| Reputation::eligible(0, &account(n)).err()).collect();
		let (work, duties) = (Some(Ineligible::MissedWork), Some(Ineligible::MissedDuties));
		assert_eq!(judged, vec![None, work, None, None, duties, None]);
	});
}

#[test]
fn decision_should_stay_when_counts_change_after_switch() {
	in_world(1, || {
		switch(0, &hosts([1]), &[]);
		did(0, 1, WorkCounts { assigned: 10, missed: 10, ..Default::default() });
		assert_eq!(Reputation::eligible(0, &account(1)), Ok(()));
	});
}

#[test]
fn settlement_should_take_pages_when_there_are_many_hosts() {
	in_world(1_000, || {
		at(0, Phase::Switch);
		Reputation::on_switch(0, &hosts(1..=1_000), &[]);
		let blocks = settle();
		// 1,000 Hosts are decided in 16 pages and looked at again in 16.
		assert_eq!(blocks, 2 * 1_000u32.div_ceil(PAGE_HOSTS));
		assert_eq!(Decisions::<Test>::iter_prefix(0).count(), 1_000);
		assert!(Standings::<Test>::iter_values().all(|record| record.reputation == 1));
	});
}

#[test]
fn page_border_should_not_skip_or_repeat_anyone() {
	for count in [PAGE_HOSTS - 1, PAGE_HOSTS, PAGE_HOSTS + 1, 2 * PAGE_HOSTS] {
		in_world(0, || {
			switch(0, &hosts(1..=count), &[]);
			assert_eq!(Standings::<Test>::iter().count() as u32, count);
			assert!(Standings::<Test>::iter_values().all(|record| record.reputation == 1));
		});
	}
}

#[test]
fn unfinished_settlement_should_be_made_up_for_at_the_next_switch() {
	in_world(0, || {
		let all = hosts(1..=300);
		at(0, Phase::Switch);
		Reputation::on_switch(0, &all, &[]);
		at(1, Phase::Switch);
		Reputation::on_switch(1, &all, &[]);
		assert!(Standings::<Test>::iter_values().all(|record| record.reputation == 1));
		settle();
		assert!(Standings::<Test>::iter_values().all(|record| record.reputation == 2));
	});
}

#[test]
fn epoch_should_leave_only_reputations_when_it_is_two_epochs_over() {
	in_world(200, || {
		let all = hosts(1..=200);
		for n in &all {
			Reputation::note_check(0, n, true);
			Seeds::<Test>::insert(0, n, [0; 32]);
		}
		switch(0, &all, &[]);
		at(2, Phase::Inference);
		idle(20);
		assert_eq!(Accuracies::<Test>::iter().count(), 200, "two epochs it is kept");
		at(3, Phase::Inference);
		idle(20);
		let left = (Accuracies::<Test>::iter().count(), Seeds::<Test>::iter().count(), Decisions::<Test>::iter().count());
		assert_eq!(left, (0, 0, 0));
		assert_eq!(Standings::<Test>::iter().count(), 200);
		assert!(!Settling::<Test>::exists());
	});
}
