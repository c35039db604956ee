//! Everything that moves money or says whose it is. All other files go through these functions, so the books and the
//! pot cannot drift apart.

use alloc::vec::Vec;
use frame_support::{
	pallet_prelude::*,
	traits::{
		fungible::{Inspect, Mutate},
		tokens::{Fortitude, Precision, Preservation},
	},
};
use pacer_types::{
	traits::{Bounties, Earnings, EpochClock, EpochWeights, Ineligible, OnExcluded, Standing},
	views::ConservationView,
	AccountId, Balance, EpochIndex,
};

use crate::{
	AccountTotals, Books, Claimable, Config, Error, Event, Exposers, Outcome, Outcomes, Pallet, Pending, SettledTo, Settling,
	Sums, CLAIM_WINDOW, FUND_SHARE, KEPT_EPOCHS, SUPPLY_CAP,
};

impl<T: Config> Earnings for Pallet<T> {
	fn pay_work(epoch: EpochIndex, pot: &AccountId, workers: &[AccountId], price: Balance) -> Result<(), DispatchError> {
		let now = T::Clock::epoch();
		let count = Balance::try_from(workers.len()).unwrap_or(0);
		ensure!(count > 0, Error::<T>::NoWorkers);
		ensure!(epoch <= now && epoch >= Self::first_kept(now), Error::<T>::EpochClosed);
		if price == 0 {
			return Ok(());
		}
		T::Currency::transfer(pot, &Self::pot(), price, Preservation::Preserve)?;
		// Nothing below can fail.
		let fund = FUND_SHARE.mul_floor(price);
		let rest = price.saturating_sub(fund);
		let each = rest.checked_div(count).unwrap_or(0);
		let remainder = rest.saturating_sub(each.saturating_mul(count));
		Books::<T>::mutate(|sums| {
			sums.paid_in = sums.paid_in.saturating_add(price);
			sums.fund = sums.fund.saturating_add(fund);
			for (i, who) in workers.iter().enumerate() {
				let amount = if i == 0 { each.saturating_add(remainder) } else { each };
				Self::earn(sums, epoch, who, amount);
			}
		});
		Ok(())
	}

	fn pending(epoch: EpochIndex, who: &AccountId) -> Balance {
		Pending::<T>::get(epoch, who)
	}
}

impl<T: Config> Bounties for Pallet<T> {
	fn note_exposed(epoch: EpochIndex, exposers: &[AccountId]) {
		if epoch < SettledTo::<T>::get() || epoch > T::Clock::epoch() {
			return;
		}
		Exposers::<T>::mutate(epoch, |list| {
			for who in exposers {
				// The first to expose are paid; a full list means that there are many already.
				if !list.contains(who) && list.try_push(who.clone()).is_err() {
					return;
				}
			}
		});
	}
}

impl<T: Config> OnExcluded for Pallet<T> {
	/// Takes back what an excluded Host has not claimed of an epoch that was settled in its favour. What is not settled
	/// yet is forfeited by the settlement itself.
	fn on_excluded(epoch: EpochIndex, who: &AccountId) {
		if Outcomes::<T>::get(epoch, who) != Some(Outcome::Eligible) {
			return;
		}
		Outcomes::<T>::insert(epoch, who, Outcome::Ineligible(Ineligible::Excluded));
		let amount = Claimable::<T>::mutate_exists(who, |open| {
			let taken = open.as_mut().and_then(|map| map.remove(&epoch)).unwrap_or(0);
			*open = open.take().filter(|map| !map.is_empty());
			taken
		});
		AccountTotals::<T>::mutate(who, |totals| totals.earned = totals.earned.saturating_sub(amount));
		let weighted = T::Weights::weight(epoch, who).is_some_and(|w| w.work > 0);
		Books::<T>::mutate(|sums| {
			sums.claimable = sums.claimable.saturating_sub(amount);
			let in_settlement = Settling::<T>::mutate(|settling| match settling {
				Some(progress) if progress.epoch == epoch => {
					if weighted {
						progress.eligible = progress.eligible.saturating_sub(1);
						progress.earned = progress.earned.saturating_sub(amount);
					}
					progress.forfeited = progress.forfeited.saturating_add(amount);
					true
				}
				_ => false,
			});
			if in_settlement {
				sums.pending = sums.pending.saturating_add(amount);
			} else {
				Self::burn(sums, amount);
			}
		});
		if amount > 0 {
			Self::deposit_event(Event::Forfeited { epoch, host: who.clone(), amount });
		}
	}
}

impl<T: Config> Pallet<T> {
	/// First epoch for which something can still be paid.
	pub(crate) fn first_kept(now: EpochIndex) -> EpochIndex {
		now.saturating_sub(KEPT_EPOCHS)
	}

	/// Work pay, already in the pot: waits for the settlement, or follows it if that is over for the Host.
	fn earn(sums: &mut Sums, epoch: EpochIndex, who: &AccountId, amount: Balance) {
		if amount == 0 {
			return;
		}
		let outcome = Outcomes::<T>::get(epoch, who).or_else(|| {
			(epoch < SettledTo::<T>::get()).then(|| {
				let late = Outcome::from(T::Standing::eligible(epoch, who));
				Outcomes::<T>::insert(epoch, who, late);
				late
			})
		});
		match outcome {
			None => {
				sums.pending = sums.pending.saturating_add(amount);
				Pending::<T>::mutate(epoch, who, |pending| *pending = pending.saturating_add(amount));
			}
			Some(Outcome::Eligible) => {
				Self::credit(sums, epoch, who, amount);
				Self::deposit_event(Event::Settled { epoch, host: who.clone(), work: amount, subsidy: 0 });
			}
			Some(Outcome::Ineligible(_)) => {
				Self::burn(sums, amount);
				Self::deposit_event(Event::Forfeited { epoch, host: who.clone(), amount });
			}
		}
	}

	/// Makes money of the pot that is nobody's claimable. Earnings of an epoch that can no longer be claimed are burned.
	pub(crate) fn credit(sums: &mut Sums, epoch: EpochIndex, who: &AccountId, amount: Balance) {
		if amount == 0 {
			return;
		}
		let now = T::Clock::epoch();
		let lapsed = Claimable::<T>::mutate(who, |open| {
			let lapsed = Self::take_lapsed(open, now);
			let old = open.get(&epoch).copied().unwrap_or(0);
			// There is room for every epoch of the window once the lapsed ones are gone.
			let kept = open.try_insert(epoch, old.saturating_add(amount)).is_ok();
			(lapsed, kept)
		});
		let (lapsed, kept) = lapsed;
		Self::note_lapsed(sums, who, lapsed);
		if kept {
			sums.claimable = sums.claimable.saturating_add(amount);
			AccountTotals::<T>::mutate(who, |totals| totals.earned = totals.earned.saturating_add(amount));
		} else {
			Self::burn(sums, amount);
		}
	}

	/// Removes what can no longer be claimed.
	pub(crate) fn take_lapsed(open: &mut crate::OpenEarnings, now: EpochIndex) -> Vec<(EpochIndex, Balance)> {
		let old: Vec<EpochIndex> = open.keys().copied().take_while(|epoch| Self::is_lapsed(*epoch, now)).collect();
		old.into_iter().filter_map(|epoch| open.remove(&epoch).map(|amount| (epoch, amount))).collect()
	}

	/// Whether earnings of the epoch can no longer be claimed.
	pub(crate) fn is_lapsed(epoch: EpochIndex, now: EpochIndex) -> bool {
		epoch.saturating_add(CLAIM_WINDOW) < now
	}

	/// Burns what [`Self::take_lapsed`] removed.
	pub(crate) fn note_lapsed(sums: &mut Sums, who: &AccountId, lapsed: Vec<(EpochIndex, Balance)>) {
		for (epoch, amount) in lapsed {
			sums.claimable = sums.claimable.saturating_sub(amount);
			Self::burn(sums, amount);
			Self::deposit_event(Event::Lapsed { epoch, host: who.clone(), amount });
		}
	}

	/// Destroys money of the pot that is nobody's.
	pub(crate) fn burn(sums: &mut Sums, amount: Balance) {
		if amount == 0 {
			return;
		}
		let burned = T::Currency::burn_from(&Self::pot(), amount, Preservation::Preserve, Precision::Exact, Fortitude::Polite);
		match burned {
			Ok(_) => sums.burned = sums.burned.saturating_add(amount),
			// Cannot happen while the pot holds what the books say; if it did, the money must still be someone's.
			Err(_) => sums.fund = sums.fund.saturating_add(amount),
		}
	}

	/// Creates subsidy in the pot, within the cap; returns what was created.
	pub(crate) fn mint(sums: &mut Sums, amount: Balance) -> Balance {
		let amount = amount.min(SUPPLY_CAP.saturating_sub(sums.minted));
		if amount == 0 || T::Currency::mint_into(&Self::pot(), amount).is_err() {
			return 0;
		}
		sums.minted = sums.minted.saturating_add(amount);
		amount
	}

	/// Pays what the account may claim for these epochs; returns the epochs that were paid, and the sum.
	pub(crate) fn pay_out(who: &AccountId, epochs: &[EpochIndex]) -> Result<(Vec<EpochIndex>, Balance), DispatchError> {
		let now = T::Clock::epoch();
		let mut paid = Vec::new();
		let mut sum: Balance = 0;
		Claimable::<T>::mutate_exists(who, |open| {
			let Some(map) = open else { return };
			for epoch in epochs.iter().filter(|epoch| !Self::is_lapsed(**epoch, now)) {
				if let Some(amount) = map.remove(epoch) {
					sum = sum.saturating_add(amount);
					paid.push(*epoch);
				}
			}
			*open = open.take().filter(|map| !map.is_empty());
		});
		ensure!(sum > 0, Error::<T>::NothingToClaim);
		T::Currency::transfer(&Self::pot(), who, sum, Preservation::Preserve)?;
		Books::<T>::mutate(|sums| {
			sums.claimable = sums.claimable.saturating_sub(sum);
			sums.paid_out = sums.paid_out.saturating_add(sum);
		});
		AccountTotals::<T>::mutate(who, |totals| totals.claimed = totals.claimed.saturating_add(sum));
		Ok((paid, sum))
	}

	/// Rewards of an account that can be claimed now, by epoch.
	pub fn claimable(who: &AccountId) -> Vec<(EpochIndex, Balance)> {
		let now = T::Clock::epoch();
		Claimable::<T>::get(who).into_iter().filter(|(epoch, _)| !Self::is_lapsed(*epoch, now)).collect()
	}

	/// What was settled in the account's favour so far.
	pub fn earned_total(who: &AccountId) -> Balance {
		AccountTotals::<T>::get(who).earned
	}

	/// What the account claimed so far.
	pub fn claimed_total(who: &AccountId) -> Balance {
		AccountTotals::<T>::get(who).claimed
	}

	/// The money this pallet holds. `escrow` is zero: it is the ledger's, which has a pot of its own.
	pub fn conservation() -> ConservationView {
		let sums = Books::<T>::get();
		ConservationView {
			escrow: 0,
			pending: sums.pending,
			claimable: sums.claimable,
			fund: sums.fund,
			minted: sums.minted,
			burned: sums.burned,
			ok: Self::check_conservation().is_ok(),
		}
	}

	/// The numbered invariants 1 to 4 of the crate. Walks the maps: for views and tests, never in a block.
	pub fn check_conservation() -> Result<(), &'static str> {
		let sums = Books::<T>::get();
		let needed = sums.owed().saturating_add(T::Currency::minimum_balance());
		if T::Currency::balance(&Self::pot()) < needed {
			return Err("1: the pot holds less than it owes");
		}
		if !sums.balanced() {
			return Err("2: what came in is not what lies there and what left");
		}
		let forfeited = Settling::<T>::get().map_or(0, |progress| progress.forfeited);
		let pending = Pending::<T>::iter_values().fold(forfeited, |sum, amount| sum.saturating_add(amount));
		if pending != sums.pending {
			return Err("3: pending work pay does not add up");
		}
		let claimable = Claimable::<T>::iter_values().flat_map(|open| open.into_inner().into_values());
		if claimable.fold(0, |sum: Balance, amount| sum.saturating_add(amount)) != sums.claimable {
			return Err("3: claimable earnings do not add up");
		}
		if sums.minted > SUPPLY_CAP {
			return Err("4: more was minted than ever may be");
		}
		Ok(())
	}
}
