//! What an agent challenges and demands, and when it says nothing.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use codec::Encode;
use pacer_types::{DutyCall, Phase, Rejection};

use super::{challenge, engines, no_engines, with_fake, World, RACE};
use crate::{
	engine::{Engines, Need},
	error::Refusal,
	run::http_client,
	sprint::{
		check::{doubts, public_sample, Recompute},
		list::NonceList,
		serve::ListServer,
	},
	testing::{app, serve, FakeEngine, Judging},
};

#[tokio::test]
async fn honest_list_should_bring_no_call_in_its_epoch_or_after() {
	let (world, engine, dir) = (World::new(), FakeEngine::start().await, tempfile::tempdir().unwrap());
	// As an agent serves it: from disk, by its real routes, the first nonces of a list that grew on.
	let nonces = world.nonces(1, 150, true);
	let mut host = Arc::into_inner(app(&world.chain, 1, &[], dir.path()).await).unwrap();
	let other = tempfile::tempdir().unwrap();
	let data = world.data(1, &other);
	let mut list = NonceList::open(&data, RACE, &world.rules.seed).unwrap();
	list.extend(&nonces.iter().rev().copied().collect::<Vec<_>>()).unwrap();
	list.extend(&[u64::MAX]).unwrap();
	world.commit(1, &nonces);
	host.lists = ListServer::new(world.chain.api(), data);
	host.head = tokio::sync::watch::channel(Some(Arc::new(world.chain.view(1)))).1;
	world.chain.set_endpoint(1, serve(Arc::new(host)).await);

	let mut common = 0;
	world.chain.edit_race(|race| common = public_sample(race, &race.commits[0]).unwrap().len());
	let mut auditor = world.auditor(&engines(&engine).await);
	world.settle(&mut auditor).await;
	assert_eq!(engine.judged().len(), common + 16, "those that everyone checks, and 16 of its own");
	world.chain.begin(RACE + 1);
	world.chain.enter(Phase::Inference);
	world.settle(&mut auditor).await;
	let judged: BTreeSet<u64> = engine.judged().into_iter().collect();
	assert_eq!(judged.len(), common + 80, "64 more when the epoch is over");
	assert!(judged.iter().all(|n| nonces.contains(n)));
	assert_eq!(world.said(0), []);
}

#[tokio::test]
async fn every_false_host_should_be_challenged_once_before_any_is_twice() {
	let world = World::new();
	for host in 1..4 {
		let fakes = world.nonces(host, 3, false);
		world.commit(host, &fakes);
		world.serve(host, &fakes).await;
	}
	// Somebody disputes Host 2 already, which may be its friend.
	world.dispute(0, 1, 2, 0, None);
	let mut auditor = world.auditor(&no_engines());
	auditor.step(&world.chain.view(0)).await.unwrap();
	while !auditor.is_idle() {
		auditor.finished().await;
	}
	world.chain.refuse_next(Refusal::Pacer(Rejection::NoQuota));
	auditor.step(&world.chain.view(0)).await.unwrap();
	let hosts = |calls: &[DutyCall]| -> Vec<usize> {
		let host = |call: &DutyCall| {
			let DutyCall::Challenge { subject, .. } = call else { panic!("{call:?}") };
			(0..4).find(|host| world.chain.account(*host) == *subject).unwrap()
		};
		calls.iter().map(host).collect()
	};
	// The first call found no room.
	assert_eq!(hosts(&world.said(0)), [3, 2, 1, 3, 2]);
	world.chain.advance(2);
	auditor.step(&world.chain.view(0)).await.unwrap();
	assert_eq!(hosts(&world.said(5)), [1], "it is tried again");
}

#[tokio::test]
async fn nonce_should_not_be_challenged_when_only_the_engine_finds_it_wrong() {
	let (world, engine) = (World::new(), FakeEngine::start().await);
	let nonces = world.nonces(1, 20, true);
	world.commit(1, &nonces);
	world.serve(1, &nonces).await;
	engine.set_fakes(&nonces[3..5]);
	let mut auditor = world.auditor(&engines(&engine).await);
	world.settle(&mut auditor).await;
	assert!(!engine.judged().is_empty());
	assert_eq!(world.said(0), [], "a deposit hangs on it");
}

#[tokio::test]
async fn fake_should_be_challenged_when_no_engine_answers() {
	let (world, busy, broken) = (World::new(), FakeEngine::start().await, FakeEngine::start().await);
	let (nonces, position) = with_fake(world.nonces(1, 20, true), world.nonces(1, 1, false)[0]);
	world.commit(1, &nonces);
	world.serve(1, &nonces).await;
	busy.set_judging(Judging::Hangs);
	broken.set_judging(Judging::Fails);
	let engines = Engines::new(&[busy.url(), broken.url()], &http_client().unwrap());
	engines.check().await;
	let host = world.chain.account(1);
	let places: Vec<_> = (0..).zip(nonces.iter().copied()).collect();
	let recompute = Recompute::Now(engines.clone());
	let mut judged = doubts(&recompute, &world.rules, &host, &places, Duration::from_secs(8)).await.unwrap();
	judged.places.sort_unstable();
	assert_eq!((judged.places, judged.doubts), (places.clone(), vec![places[position as usize]]));
	busy.set_judging(Judging::Fails);
	let mut auditor = world.auditor(&engines);
	world.settle(&mut auditor).await;
	assert_eq!(world.said(0), [challenge(host, position)]);
}

#[tokio::test]
async fn second_engine_should_be_asked_when_the_first_fails() {
	let (world, first, second) = (World::new(), FakeEngine::start().await, FakeEngine::start().await);
	let nonces = world.nonces(1, 20, true);
	first.set_judging(Judging::Fails);
	let engines = Engines::new(&[first.url(), second.url()], &http_client().unwrap());
	engines.check().await;
	let recompute = Recompute::Now(engines.clone());
	let limit = Duration::from_secs(10);
	let judged = recompute.judge(&world.rules, &world.chain.account(1), &nonces, limit).await.unwrap();
	assert_eq!((judged, second.judged()), (vec![true; 20], nonces));
	assert!(engines.has_idle(Need::Race), "no lease is kept");
}

#[tokio::test]
async fn list_should_be_served_anew_when_a_fork_changes_what_was_committed() {
	let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
	let data = world.data(1, &dir);
	NonceList::open(&data, RACE, &world.rules.seed).unwrap().extend(&[30, 10, 20]).unwrap();
	let lists = ListServer::new(world.chain.api(), data);
	let words = |nonces: &[u64]| Some(nonces.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>());
	world.commit(1, &[10, 30]);
	for _ in 0..2 {
		assert_eq!(lists.page(&world.chain.view(1), RACE, 0).await.unwrap(), words(&[10, 30]));
		world.chain.advance(1);
	}
	world.chain.edit_race(|race| race.commits.clear());
	world.commit(1, &[10, 20, 30]);
	assert_eq!(lists.page(&world.chain.view(1), RACE, 0).await.unwrap(), words(&[10, 20, 30]));
}

#[tokio::test]
async fn list_should_be_demanded_when_it_is_withheld_or_another() {
	let world = World::new();
	let (nonces, fakes) = (world.nonces(1, 20, true), world.nonces(1, 20, false));
	world.commit(1, &nonces);
	world.commit(2, &nonces);
	world.commit(3, &nonces);
	// Host 1 serves nothing, Host 2 bait, Host 3 the list twice.
	world.serve(2, &fakes).await;
	world.serve(3, &[nonces[..10].to_vec(), nonces[..10].to_vec()].concat()).await;
	let mut auditor = world.auditor(&no_engines());
	for _ in 0..6 {
		world.settle(&mut auditor).await;
		assert_eq!(world.said(0), [], "patience");
		world.chain.advance(2);
	}
	world.chain.advance(10);
	world.settle(&mut auditor).await;
	let demand = |host| DutyCall::DemandList { subject: world.chain.account(host), with_deposit: false };
	let mut said = world.said(0);
	said.sort_by_key(|call| call.encode());
	assert_eq!(said, [demand(1), demand(2), demand(3)]);

	// What Host 1 then posts is judged in place of its list, for longer than other positions.
	let (fake, right) = (fakes[7], nonces[4]);
	world.demand(1, Some(10_045), vec![(4, right)]);
	world.chain.advance(28);
	world.settle(&mut auditor).await;
	assert!(!world.said(3).iter().any(|call| matches!(call, DutyCall::Challenge { .. })));
	world.demand(1, Some(10_045), vec![(4, right), (7, fake)]);
	world.settle(&mut auditor).await;
	assert_eq!(world.said(3).last(), Some(&challenge(world.chain.account(1), 7)));
}

#[tokio::test]
async fn deposit_should_be_put_down_when_a_newcomer_gets_no_list_but_others() {
	let world = World::new();
	let nonces = world.nonces(2, 5, true);
	world.commit(1, &nonces);
	world.commit(2, &nonces);
	world.chain.set_stake(0, 0, 1_000);
	let mut auditor = world.auditor(&no_engines());
	for _ in 0..18 {
		world.settle(&mut auditor).await;
		world.chain.advance(2);
	}
	world.settle(&mut auditor).await;
	assert_eq!(world.said(0), [], "it gets nobody's list: the fault is its own");
	world.serve(2, &nonces).await;
	world.chain.advance(2);
	world.settle(&mut auditor).await;
	assert_eq!(world.said(0), [DutyCall::DemandList { subject: world.chain.account(1), with_deposit: true }]);
}

#[tokio::test]
async fn fake_should_be_challenged_late_when_it_is_found_late() {
	let (world, engine) = (World::new(), FakeEngine::start().await);
	// More than half are fakes, which the engine does not notice in time.
	let fakes = world.nonces(1, 60, false);
	let mut nonces = [world.nonces(1, 40, true), fakes.clone()].concat();
	nonces.sort_unstable();
	world.commit(1, &nonces);
	world.serve(1, &nonces).await;
	let engines = engines(&engine).await;
	let mut auditor = world.auditor(&engines);
	world.settle(&mut auditor).await;
	engine.set_fakes(&fakes);
	world.chain.begin(RACE + 1);
	world.chain.enter(Phase::Inference);
	let lease = engines.lease(Need::Race);
	world.settle(&mut auditor).await;
	assert_eq!(world.said(0), [], "an engine that serves is left alone");
	drop(lease);
	world.settle(&mut auditor).await;
	let said = world.chain.submitted();
	assert!((1..=2).contains(&said.len()), "two at a time");
	for call in &said {
		assert_eq!(call.header.epoch, RACE + 1);
		let DutyCall::Challenge { race: RACE, position, .. } = call.call else { panic!("{call:?}") };
		assert!(fakes.contains(&nonces[position as usize]));
	}
	// One that starts only then finds some, too.
	let known = said.len();
	world.settle(&mut world.auditor(&engines)).await;
	assert!(world.said(known).iter().all(|call| matches!(call, DutyCall::Challenge { .. })) && world.said(known).len() == 2);
}
