use super::*;
use proptest::prelude::*;

const CONTEXT: Context = Context { genesis: [7; 32], epoch: 3, which: Which::Race };

type Entries = Vec<(Host, [u8; 32])>;

/// Dealings and openings of `n` hosts.
fn round(context: &Context, n: u8) -> (Entries, Entries) {
	let openings: Entries = (0..n).map(|i| ([i; 32], context.secret(&[i + 100; 32], &[i; 32]))).collect();
	let dealings = openings.iter().map(|(host, secret)| (*host, context.commitment(host, secret))).collect();
	(dealings, openings)
}

#[test]
fn value_should_be_golden() {
	let (dealings, openings) = round(&CONTEXT, 4);
	let value = CONTEXT.value(&dealings, &openings).expect("a good round");
	let hex: String = value.iter().map(|b| format!("{b:02x}")).collect();
	assert_eq!(hex, include_str!("golden_value.txt").trim());
}

#[test]
fn value_should_differ_when_the_context_differs() {
	let contexts = [
		CONTEXT,
		Context { genesis: [8; 32], ..CONTEXT },
		Context { epoch: 4, ..CONTEXT },
		Context { which: Which::Audit, ..CONTEXT },
	];
	let mut values: Vec<Value> = contexts
		.iter()
		.map(|c| {
			let (dealings, openings) = round(c, 3);
			c.value(&dealings, &openings).expect("a good round")
		})
		.collect();
	values.sort_unstable();
	values.dedup();
	assert_eq!(values.len(), contexts.len());
}

#[test]
fn value_should_depend_on_dealings_that_were_not_opened() {
	let (dealings, openings) = round(&CONTEXT, 4);
	let without = CONTEXT.value(&dealings[..3], &openings[..3]);
	let with = CONTEXT.value(&dealings, &openings[..3]);
	assert!(with.is_ok() && with != without);
}

#[test]
fn value_should_fail_when_entries_do_not_fit() {
	let (dealings, openings) = round(&CONTEXT, 3);
	assert_eq!(CONTEXT.value(&dealings, &[]), Err(Error::NoOpening));
	let reversed: Entries = dealings.iter().rev().copied().collect();
	assert_eq!(CONTEXT.value(&reversed, &openings), Err(Error::Unsorted));
	let doubled = [openings[0], openings[0]];
	assert_eq!(CONTEXT.value(&dealings, &doubled), Err(Error::Unsorted));
	assert_eq!(CONTEXT.value(&dealings[..2], &openings), Err(Error::WrongOpening));
	let mut wrong = openings.clone();
	wrong[1].1[0] ^= 1;
	assert_eq!(CONTEXT.value(&dealings, &wrong), Err(Error::WrongOpening));
}

#[test]
fn commitment_should_not_open_when_copied_by_another_host() {
	let secret = CONTEXT.secret(&[1; 32], &[2; 32]);
	let commitment = CONTEXT.commitment(&[2; 32], &secret);
	assert!(CONTEXT.opens(&[2; 32], &commitment, &secret));
	assert!(!CONTEXT.opens(&[3; 32], &commitment, &secret));
	assert!(!Context { epoch: 4, ..CONTEXT }.opens(&[2; 32], &commitment, &secret));
}

proptest! {
	#[test]
	fn value_should_change_when_any_secret_changes(n in 1u8..20, at in any::<prop::sample::Index>(), bit in 0usize..256) {
		let (mut dealings, mut openings) = round(&CONTEXT, n);
		let before = CONTEXT.value(&dealings, &openings).expect("a good round");
		let at = at.index(usize::from(n));
		openings[at].1[bit / 8] ^= 1 << (bit % 8);
		dealings[at].1 = CONTEXT.commitment(&openings[at].0, &openings[at].1);
		prop_assert_ne!(CONTEXT.value(&dealings, &openings).expect("still good"), before);
	}
}
