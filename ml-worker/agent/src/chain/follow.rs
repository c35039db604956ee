//! Follows best blocks and publishes a [`View`] of each.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
	chain::{
		read_view,
		rpc::{Backoff, Node},
		Api, View,
	},
	error::{Error, Result},
	keys::KeyPair,
};

/// After this long without a block the connection is made anew.
const SILENCE: Duration = Duration::from_secs(60);

/// The newest view; `None` until the first one was read.
pub type Head = watch::Receiver<Option<Arc<View>>>;

/// Follows a node until the receivers are gone. Reconnects for ever.
pub async fn run(node: Arc<Node>, api: Api, key: KeyPair, views: watch::Sender<Option<Arc<View>>>) {
	let mut backoff = Backoff::default();
	loop {
		match follow(&node, &api, &key, &views, &mut backoff).await {
			Ok(()) => return,
			Err(e) => tracing::warn!("lost the node, trying again: {e}"),
		}
		backoff.wait().await;
	}
}

async fn follow(
	node: &Node,
	api: &Api,
	key: &KeyPair,
	views: &watch::Sender<Option<Arc<View>>>,
	backoff: &mut Backoff,
) -> Result<()> {
	if node.genesis().await? != api.genesis {
		return Err(Error::node("this node is on another chain"));
	}
	let mut heads = node.heads().await?;
	loop {
		// While a view was read more heads may have come: only the newest matters, and the node says which that is.
		match tokio::time::timeout(SILENCE, heads.next()).await {
			Err(_) => return Err(Error::node("no block for a minute")),
			Ok(None) => return Err(Error::node("the subscription ended")),
			Ok(Some(head)) => head.map_err(Error::node)?,
		};
		let best = node.best().await?;
		if views.borrow().as_ref().is_some_and(|v| v.hash == best) {
			continue;
		}
		let height = node.header(best).await?.and_then(|h| h.height());
		let Some(height) = height else { continue };
		let old = views.borrow().clone();
		let view = read_view(api, key, best, height, old.as_deref()).await?;
		announce(old.as_deref(), &view);
		*backoff = Backoff::default();
		if views.send(Some(Arc::new(view))).is_err() {
			return Ok(());
		}
	}
}

/// Says in words what changed.
fn announce(old: Option<&View>, new: &View) {
	let now = &new.clock.now;
	if old.is_none_or(|o| (o.epoch(), o.phase()) != (new.epoch(), new.phase())) {
		tracing::info!(block = new.number, "epoch {}: {} for {} s", now.epoch, now.phase.name(), new.seconds_left());
	}
	match (old.map(|o| o.me.is_some()), &new.me) {
		(None | Some(false), Some(me)) => tracing::info!("this agent speaks for Host {me}"),
		(None | Some(true), None) => {
			tracing::warn!("no Host is registered with this duty key yet; waiting for the wallet to register one")
		},
		_ => {},
	}
	metrics::gauge!("pacer_agent_block").set(f64::from(new.number));
	metrics::gauge!("pacer_agent_epoch").set(f64::from(now.epoch));
	metrics::gauge!("pacer_agent_phase").set(f64::from(now.phase as u8));
	metrics::gauge!("pacer_agent_phase_seconds_left").set(new.seconds_left() as f64);
	if let Some(host) = new.my_host() {
		metrics::gauge!("pacer_agent_work_weight").set(host.work as f64);
		metrics::gauge!("pacer_agent_consensus_weight").set(host.consensus as f64);
		metrics::gauge!("pacer_agent_reputation").set(f64::from(host.reputation));
	}
}
