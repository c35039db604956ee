//! The moves of both sides.

use pacer_sprint::{tree::root_of, RangeTree, Step};
use pacer_types::DutyCall;

use super::{challenge, no_engines, with_fake, World, RACE};
use crate::sprint::{check::public_sample, list::NonceList};

#[tokio::test]
async fn fake_should_be_challenged_once_and_its_answer_refuted() {
	let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
	let fake = world.nonces(1, 30, false)[29];
	let (nonces, at) = with_fake(world.nonces(1, 50, true), fake);
	world.commit(1, &nonces);
	world.serve(1, &nonces).await;
	let mut auditor = world.auditor(&no_engines());
	world.settle(&mut auditor).await;
	let subject = world.chain.account(1);
	assert_eq!(world.said(0), [challenge(subject.clone(), at)]);

	// On chain: nothing more to challenge, not even for an agent that has just started.
	world.dispute(0, 0, 1, at, None);
	world.chain.advance(10);
	world.settle(&mut auditor).await;
	world.settle(&mut world.auditor(&no_engines())).await;
	let data = world.data(0, &dir);
	world.play(0, &mut world.disputer(0, &data)).await;
	assert_eq!(world.said(1), [], "it is the Host's move");

	// The Host answers with the right hashes: the nonce is merely not appropriate.
	let hashes = world.trace(1, fake).hashes();
	world.dispute(0, 0, 1, at, Some((fake, &hashes)));
	let mut disputer = world.disputer(0, &data);
	world.play(0, &mut disputer).await;
	let said = world.said(1);
	let [DutyCall::Refute { race: RACE, dispute: 0, step: step @ Step::Output { .. } }] = &said[..] else { panic!("{said:?}") };
	assert!(world.is_false(1, fake, &hashes, step));
	world.play(0, &mut disputer).await;
	assert_eq!(world.said(2), [], "not again so soon");
	world.chain.advance(6);
	world.play(0, &mut disputer).await;
	assert_eq!(world.said(2).len(), 1, "again when it seems lost");

	// Decided: silence.
	world.chain.edit_race(|race| {
		race.disputes.clear();
		race.commits[0].struck = true;
	});
	world.chain.advance(6);
	world.play(0, &mut disputer).await;
	world.settle(&mut auditor).await;
	assert_eq!(world.said(3), []);
}

#[tokio::test]
async fn first_false_step_should_be_named_when_hashes_are_wrong() {
	let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
	let fake = world.nonces(1, 1, false)[0];
	world.commit(1, &[fake]);
	let data = world.data(0, &dir);
	for (wrong, expected) in [(0, "input"), (1, "layer"), (3, "layer"), (5, "output")] {
		let mut hashes = world.trace(1, fake).hashes();
		hashes[wrong] = [9; 32];
		world.dispute(wrong as u32, 0, 1, 0, Some((fake, &hashes)));
		let known = world.said(0).len();
		world.play(0, &mut world.disputer(0, &data)).await;
		let said = world.said(known);
		let Some(DutyCall::Refute { step, .. }) = said.last() else { panic!("{said:?}") };
		assert_eq!(step.name(), expected);
		assert!(world.is_false(1, fake, &hashes, step));
		world.chain.edit_race(|race| race.disputes.clear());
	}
	// An answer that holds is not refuted: the challenge was wrong.
	let right = world.nonces(1, 1, true)[0];
	world.dispute(9, 0, 1, 0, Some((right, &world.trace(1, right).hashes())));
	let known = world.said(0).len();
	world.play(0, &mut world.disputer(0, &data)).await;
	assert_eq!(world.said(known), []);
}

#[tokio::test]
async fn false_dispute_should_be_answered_and_nothing_else() {
	let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
	let nonces = world.nonces(0, 40, true);
	let data = world.data(0, &dir);
	NonceList::open(&data, RACE, &world.rules.seed).unwrap().extend(&nonces).unwrap();
	let known = &nonces[..30];
	world.commit(0, known);
	let (count, root) = (30, root_of(known).unwrap());
	world.dispute(7, 1, 0, 17, None);
	let mut disputer = world.disputer(0, &data);
	world.play(0, &mut disputer).await;
	let said = world.said(0);
	let [DutyCall::Answer { race: RACE, dispute: 7, opening, hashes }] = &said[..] else { panic!("{said:?}") };
	assert_eq!((opening.position, opening.nonce, opening.verify(&root, count)), (17, nonces[17], Ok(())));
	let hashes: Vec<[u8; 32]> = hashes.iter().map(|h| h.0).collect();
	assert_eq!(hashes, world.trace(0, nonces[17]).hashes());

	// The agent restarts before the answer is in a block: it says the same again.
	drop(disputer);
	world.play(0, &mut world.disputer(0, &data)).await;
	assert_eq!(world.said(1), said);
	world.dispute(7, 1, 0, 17, Some((nonces[17], &hashes)));
	let mut disputer = world.disputer(0, &data);
	world.play(0, &mut disputer).await;
	world.chain.edit_race(|race| race.disputes.clear());
	world.play(0, &mut disputer).await;
	assert_eq!(world.said(2), [], "the challenger has nothing to refute, and the dispute ends");
}

#[tokio::test]
async fn demanded_openings_should_be_posted_until_all_are_on_chain() {
	let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
	let nonces: Vec<u64> = (0..1_000).map(|n| n * 3).collect();
	let data = world.data(0, &dir);
	NonceList::open(&data, RACE, &world.rules.seed).unwrap().extend(&nonces).unwrap();
	world.commit(0, &nonces);
	let tree = RangeTree::build(&nonces).unwrap();
	let mut sample = Vec::new();
	world.chain.edit_race(|race| sample = public_sample(race, &race.commits[0]).unwrap());
	world.demand(0, None, vec![]);
	let mut disputer = world.disputer(0, &data);
	world.play(0, &mut disputer).await;
	assert_eq!(world.said(0), [], "too few want it");

	world.demand(0, Some(10_016), vec![]);
	world.play(0, &mut disputer).await;
	world.play(0, &mut disputer).await;
	let openings = |calls: &[DutyCall]| -> Vec<u32> {
		let all = calls.iter().flat_map(|call| match call {
			DutyCall::PostOpenings { openings } => openings.clone(),
			other => panic!("{other:?}"),
		});
		all.inspect(|o| assert_eq!(o.verify(&tree.root(), tree.count()), Ok(()))).map(|o| o.position).collect()
	};
	let said = world.said(0);
	assert_eq!(openings(&said), sample);
	assert!(said.len() == sample.len().div_ceil(16) && said.len() > 2);

	// Some are on chain when the agent restarts: only the others are posted.
	let posted: Vec<(u32, u64)> = sample[16..32].iter().map(|p| (*p, nonces[*p as usize])).collect();
	world.demand(0, Some(10_016), posted.clone());
	world.play(0, &mut world.disputer(0, &data)).await;
	let rest: Vec<u32> = sample.iter().copied().filter(|p| !posted.iter().any(|(q, _)| p == q)).collect();
	assert_eq!(openings(&world.said(said.len())), rest);
	let known = world.said(0).len();
	world.demand(0, Some(10_016), sample.iter().map(|p| (*p, nonces[*p as usize])).collect());
	world.play(0, &mut world.disputer(0, &data)).await;
	assert_eq!(world.said(known), []);
}
