//! The randomness under attack, in one local network (`design/randomness.md`).
//!
//! Four nodes run with nothing but their off-chain workers. Beside them are 49 Hosts of the least weight, for which this
//! test speaks by hand: a third of all weight, as much as an adversary may have. Three epochs:
//! 1. [`silence`]: members with more than half of the weight do not deal; Deal is repeated, and skipped.
//! 2. [`attack`]: everything that members can send is sent, right and wrong; a node is killed after it dealt; another stops
//!    and takes finality with it.
//! 3. [`fork`]: the network is cut in two while it deals, and each half closes its own set of dealings.
//!
//! [`record`] then reads the final chain on every node and computes all values again.
//!
//! That fewer shares than the threshold tell nothing about a value, and that no strategy moves its distribution, is shown
//! on the pure protocol in `pacer-beacon`.

mod attack;
mod cast;
mod fork;
mod net;
mod record;
mod silence;
mod stage;

use anyhow::ensure;

use crate::{net::Net, record::Record, stage::Stage};

async fn play(stage: &mut Stage) -> anyhow::Result<()> {
	silence::play(stage).await?;
	attack::play(stage).await?;
	let last = fork::play(stage).await?;
	stage.net.check_alive()?;
	let record = Record::read(stage, last).await?;
	record.check_nodes(stage).await?;
	record.check_once()?;
	silence::check(stage, &record)?;
	attack::check(stage, &record)?;
	fork::check(stage, &record)?;
	for (epoch, which) in record.drawn() {
		record.compute(stage, epoch, which).await?;
	}
	ensure!(record.drawn().len() == 3, "there should be two values of epoch 1 and one of epoch 2: {:?}", record.drawn());
	Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e2e_beacon_should_give_everyone_the_same_values_when_a_minority_cheats_and_nodes_fail() -> anyhow::Result<()> {
	let dir = tempfile::Builder::new().prefix("pacer-beacon-").tempdir()?;
	let net = Net::start(dir.path(), &["Dave"]).await?;
	let outcome = async {
		let mut stage = Stage::set(net).await?;
		let outcome = play(&mut stage).await;
		if outcome.is_err() {
			let now = stage.chain().clock().await.map(|clock| clock.now);
			println!("it was {now:?}");
		}
		outcome
	}
	.await;
	if outcome.is_err() {
		// What happened is in the logs; keep them.
		println!("logs are kept in {}", dir.keep().display());
	}
	outcome
}
