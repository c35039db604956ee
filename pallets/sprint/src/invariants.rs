//! The numbered invariants of the crate, checked over the whole state.

use alloc::{collections::BTreeMap, vec::Vec};
use frame_support::{
	ensure,
	traits::{fungible::InspectHold, Get},
};
use pacer_types::{traits::EpochWeights, AccountId, EpochIndex, MAX_HOSTS};
use sp_runtime::TryRuntimeError;

use crate::{
	Against, Asked, Challenges, Commits, Config, Demands, Disputes, Due, DueKey, Ending, HoldReason, Matter, NextDispute, NextPruned, OpenBy,
	OpenByWallets, Pallet, Party, Question, Recents, Salts, Struck, Totals, Weights, MAX_MEAN,
};

type Checked = Result<(), TryRuntimeError>;

impl<T: Config> Pallet<T> {
	/// Checks the numbered invariants of the crate.
	pub fn do_try_state() -> Checked {
		Self::check_weights()?;
		Self::check_commits()?;
		Self::check_due()?;
		Self::check_deposits()?;
		Self::check_struck()?;
		Self::check_demands()
	}

	fn check_weights() -> Checked {
		let first = NextPruned::<T>::get();
		let mut epochs = 0usize;
		for (epoch, list) in Weights::<T>::iter() {
			epochs = epochs.saturating_add(1);
			let ascending = list.windows(2).all(|pair| matches!(pair, [a, b] if a.host < b.host));
			ensure!(ascending, "1: weights are not strictly ascending");
			ensure!(list.iter().all(|w| w.consensus >= 1 && w.consensus <= w.work), "1: a weight is out of range");
			ensure!(Totals::<T>::get(epoch) == Self::sums(&list), "2: totals are not the sums of the weights");
			ensure!(epoch >= first, "3: old weights are kept");
		}
		ensure!(Totals::<T>::iter_keys().count() == epochs, "2: totals without weights");
		let most = (MAX_HOSTS as usize).saturating_mul(MAX_MEAN as usize);
		ensure!(Recents::<T>::iter_keys().count() <= most, "3: too many recent counts");
		Ok(())
	}

	fn check_commits() -> Checked {
		let first = NextPruned::<T>::get();
		for (epoch, host, commit) in Commits::<T>::iter() {
			ensure!(epoch >= first, "3: an old commitment is kept");
			ensure!(commit.count > 0 && commit.count <= T::MaxCount::get(), "4: a count is out of range");
			ensure!(commit.bond <= Self::stake_for(commit.count), "4: a bond is more than the count's stake");
			let open = !Self::is_decided(epoch) && Struck::<T>::contains_key(epoch, &host);
			ensure!(!open || commit.bond == 0, "7: a struck Host's bond is still locked");
		}
		let old = Struck::<T>::iter_keys().map(|(epoch, _)| epoch).chain(Asked::<T>::iter_keys().map(|(epoch, _)| epoch));
		let old = old.chain(Challenges::<T>::iter_keys().map(|(epoch, _)| epoch));
		ensure!(old.chain(Salts::<T>::iter_keys()).all(|epoch| epoch >= first), "3: something old is kept");
		Ok(())
	}

	fn check_due() -> Checked {
		let disputes = Disputes::<T>::iter().map(|(race, id, d)| DueKey::new(d.deadline, Matter::Dispute(race, id)));
		let demands = Demands::<T>::iter().filter(|(_, _, demand)| demand.is_open());
		let demands = demands.map(|(race, who, d)| DueKey::new(d.deadline.unwrap_or_default(), Matter::Demand(race, who)));
		let mut needed: Vec<DueKey> = disputes.chain(demands).collect();
		let mut found: Vec<DueKey> = Due::<T>::iter_keys().collect();
		ensure!(
			found.windows(2).all(|w| matches!(w, [a, b] if a.slot() <= b.slot())),
			"5: deadlines are not in the order of time"
		);
		needed.sort_unstable();
		found.sort_unstable();
		ensure!(needed == found, "5: what is open and the deadlines do not match");
		for (race, id, dispute) in Disputes::<T>::iter() {
			ensure!(id < NextDispute::<T>::get(race), "5: a dispute has a number that was not given");
			ensure!(Against::<T>::contains_key((race, &dispute.subject), id), "5: a dispute is not listed by its subject");
			let asked = (&dispute.deposit.by.who, &dispute.subject, Question::Position(dispute.position));
			ensure!(Asked::<T>::contains_key(race, asked), "5: a dispute whose question was not asked");
		}
		ensure!(Against::<T>::iter_keys().count() == Disputes::<T>::iter_keys().count(), "5: a subject lists too much");
		Ok(())
	}

	fn check_deposits() -> Checked {
		let mut open: BTreeMap<AccountId, u32> = BTreeMap::new();
		let mut held: BTreeMap<AccountId, u128> = BTreeMap::new();
		let mut wallets = 0u32;
		let mut hold = |by: &Party, amount: u128| {
			if by.wallet {
				held.entry(by.who.clone()).and_modify(|sum| *sum = sum.saturating_add(amount)).or_insert(amount);
			}
		};
		for dispute in Disputes::<T>::iter_values() {
			let by = &dispute.deposit.by;
			hold(by, dispute.deposit.amount);
			open.entry(by.who.clone()).and_modify(|n| *n = n.saturating_add(1)).or_insert(1);
			wallets = wallets.saturating_add(u32::from(by.wallet));
		}
		for demand in Demands::<T>::iter_values() {
			ensure!(!demand.closed || demand.deposit.is_none(), "6: a demand that ended keeps a deposit");
			demand.deposit.iter().for_each(|deposit| hold(&deposit.by, deposit.amount));
		}
		for (who, amount) in held {
			let on_hold = T::Currency::balance_on_hold(&HoldReason::Deposit.into(), &who);
			ensure!(on_hold == amount, "6: deposits on hold are not those of what is open");
		}
		ensure!(open == OpenBy::<T>::iter().collect(), "6: open disputes are miscounted");
		ensure!(open.values().all(|n| *n <= T::MaxOpenPerChallenger::get()), "6: a challenger has too many open disputes");
		ensure!(wallets == OpenByWallets::<T>::get(), "6: open disputes of wallets are miscounted");
		ensure!(wallets <= T::MaxWalletDisputes::get(), "6: wallets have too many open disputes");
		Ok(())
	}

	fn check_struck() -> Checked {
		for (race, _, dispute) in Disputes::<T>::iter() {
			let subject = dispute.subject;
			let ending = Ending::<T>::contains_key((race, &subject));
			ensure!(ending || !Struck::<T>::contains_key(race, &subject), "7: a struck Host has open disputes");
			ensure!(!Self::is_decided(race) || race < Self::epoch_now(), "7: a dispute outlived its race");
		}
		ensure!(Ending::<T>::iter_keys().all(|(race, who)| Struck::<T>::contains_key(race, who)), "7: an end without a strike");
		Ok(())
	}

	fn check_demands() -> Checked {
		for (race, subject, demand) in Demands::<T>::iter() {
			ensure!(race >= NextPruned::<T>::get(), "3: an old demand is kept");
			let struck = Struck::<T>::contains_key(race, &subject);
			ensure!(!struck || !demand.is_open(), "8: a struck Host still has to post");
			let ascending = demand.posted.windows(2).all(|w| matches!(w, [(a, m), (b, n)] if a < b && m < n));
			ensure!(ascending, "8: what was posted is not ascending");
			let voices = Asked::<T>::iter_key_prefix(race)
				.filter(|(_, of, question)| *of == subject && *question == Question::Voice)
				.map(|(who, _, _)| Self::weight(race, &who).map_or(0, |w| w.consensus))
				.fold(0u64, |sum, weight| sum.saturating_add(weight));
			ensure!(voices == demand.weight || Weights::<T>::get(race).is_none(), "8: a demand is not the weight of its voices");
		}
		Ok(())
	}

	fn epoch_now() -> EpochIndex {
		<Self as pacer_types::traits::EpochClock>::epoch()
	}
}
