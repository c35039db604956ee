//! `pacer-agent sprint audit`.

use super::{with_fake, World, RACE};
use crate::{
	peers::{Peers, Reach},
	sprint::{
		check::Recompute,
		report::{Audit, Choice, Verdict},
	},
};

#[tokio::test]
async fn report_should_name_what_is_wrong_with_each_list() {
	let world = World::new();
	let fake = world.nonces(2, 3, false)[2];
	let (lying, at) = with_fake(world.nonces(2, 10, true), fake);
	let honest = world.nonces(1, 100, true);
	for (host, nonces) in [(1, &honest), (2, &lying), (3, &honest)] {
		world.commit(host, nonces);
	}
	world.serve(1, &honest).await;
	world.serve(2, &lying).await;
	let mut hashes = world.trace(2, fake).hashes();
	let audit = |choice| {
		let (api, peers) = (world.chain.api(), Peers::new(Reach::Anywhere).unwrap());
		Audit { api, peers, recompute: Recompute::Reference, choice }
	};
	let report = audit(Choice::Sample { private: 4 }).run(RACE, None).await.unwrap();
	let verdicts: Vec<Verdict> = report.hosts.iter().map(|line| line.verdict).collect();
	assert_eq!(verdicts, [Verdict::Holds, Verdict::False, Verdict::Unproven]);
	assert!(!report.holds() && report.is_sample_known);
	let wrong = &report.hosts[1].wrong;
	assert_eq!((wrong.len(), wrong[0].position, wrong[0].nonce.clone()), (1, at, fake.to_string()));
	assert_eq!(wrong[0].false_step, "output");
	assert!(report.hosts[0].checked > 40 && report.hosts[0].checked < 100);
	let text = report.to_string();
	assert!(
		text.contains("FALSE") && text.contains("UNPROVEN") && text.contains(&format!("nonce {fake}, first false step: output"))
	);

	// An answer on chain is what the steps are compared with.
	hashes[2] = [0; 32];
	world.dispute(0, 0, 2, at, Some((fake, &hashes)));
	let only = audit(Choice::All).run(RACE, Some(&world.chain.account(2))).await.unwrap();
	assert_eq!((only.hosts.len(), only.hosts[0].wrong[0].false_step.as_str()), (1, "layer 1"));
	let all = audit(Choice::All).run(RACE, Some(&world.chain.account(1))).await.unwrap();
	assert!(all.holds() && all.hosts[0].checked == 100);
	assert!(audit(Choice::All).run(RACE, Some(&world.chain.account(0))).await.is_err(), "it claims nothing");
	assert!(audit(Choice::All).run(RACE + 1, None).await.is_err(), "no race there");
}
