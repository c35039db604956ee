//! Models and prices.

use frame_support::{assert_noop, assert_ok, BoundedVec};
use pacer_types::{ledger::MAX_MODELS, Hash, PCR};
use sp_runtime::DispatchError;

use crate::{mock::*, Error, ModelInfo};

fn info(name: &str) -> ModelInfo {
	ModelInfo {
		name: BoundedVec::truncate_from(name.as_bytes().to_vec()),
		weights_hash: Hash::zero(),
		prompt_price: 1,
		completion_price: 2,
		thresholds: BoundedVec::truncate_from(vec![1, 2, 3]),
	}
}

#[test]
fn model_should_be_registered_by_the_admin_only() {
	build_and_execute(|| {
		assert_noop!(Ledger::register_model(RuntimeOrigin::signed(developer(0)), info("a")), DispatchError::BadOrigin);
		assert_ok!(Ledger::register_model(RuntimeOrigin::root(), info("a")));
		let models = Ledger::models();
		assert_eq!((models.len(), models[1].id, models[1].name.as_slice()), (2, 1, &b"a"[..]));
		assert_eq!(Ledger::thresholds(1), Some(vec![1, 2, 3]));
	});
}

#[test]
fn model_should_be_refused_when_its_name_is_taken_or_there_are_too_many() {
	build_and_execute(|| {
		assert_noop!(Ledger::register_model(RuntimeOrigin::root(), info("demo")), Error::<Test>::BadModelName);
		assert_noop!(Ledger::register_model(RuntimeOrigin::root(), info("")), Error::<Test>::BadModelName);
		for n in 1..MAX_MODELS {
			assert_ok!(Ledger::register_model(RuntimeOrigin::root(), info(&format!("m{n}"))));
		}
		assert_noop!(Ledger::register_model(RuntimeOrigin::root(), info("more")), Error::<Test>::TooManyModels);
	});
}

#[test]
fn prices_should_change_by_the_admin_only() {
	build_and_execute(|| {
		let thresholds = BoundedVec::truncate_from(vec![9]);
		assert_noop!(
			Ledger::update_model(RuntimeOrigin::signed(developer(0)), 0, 1, 1, thresholds.clone()),
			DispatchError::BadOrigin
		);
		assert_noop!(Ledger::update_model(RuntimeOrigin::root(), 7, 1, 1, thresholds.clone()), Error::<Test>::UnknownModel);
		assert_ok!(Ledger::update_model(RuntimeOrigin::root(), 0, 5 * PCR, 6 * PCR, thresholds));
		assert_eq!((Ledger::models()[0].prompt_price, Ledger::models()[0].completion_price), (5 * PCR, 6 * PCR));
	});
}
