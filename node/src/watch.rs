//! Follows the chain for the operator and for the off-chain workers.
//!
//! - Writes height and hash of the last final block to off-chain storage, where the randomness protocol waits for it:
//!   nothing is opened before the block that closes its phase is final, and nothing on a fork that lost.
//! - Logs each new phase, and at the start of an epoch the Hosts' weights, at `info`.
//! - Sets Prometheus gauges: epoch, phase, weights, commits of the race, registered Hosts.

use std::sync::Arc;

use codec::Encode;
use futures::{FutureExt, StreamExt};
use pacer_runtime_api::PacerApi;
use pacer_types::{views::ClockView, EpochIndex, Phase};
use sc_client_api::{Backend, BlockchainEvents};
use sp_api::ProvideRuntimeApi;
use sp_core::offchain::{OffchainStorage, STORAGE_PREFIX};
use sp_runtime::traits::Header;
use substrate_prometheus_endpoint::{register, Gauge, GaugeVec, Opts, PrometheusError, Registry, U64};

use crate::service::{Block, FullBackend, FullClient};

/// Target of log lines.
const LOG: &str = "pacer";
/// Where the runtime's off-chain worker reads height and hash of the last final block, as SCALE-encoded (u32, H256).
const FINALIZED_KEY: &[u8] = b"pacer/finalized";

struct Metrics {
	epoch: Gauge<U64>,
	phase: Gauge<U64>,
	hosts: Gauge<U64>,
	commits: Gauge<U64>,
	claimed_nonces: Gauge<U64>,
	weight: GaugeVec<U64>,
}

impl Metrics {
	fn register(registry: &Registry) -> Result<Self, PrometheusError> {
		let gauge = |name: &str, help: &str| register(Gauge::<U64>::new(name, help)?, registry);
		Ok(Self {
			epoch: gauge("pacer_epoch", "Index of the epoch")?,
			phase: gauge("pacer_phase", "Phase: 0 Inference, 1 Deal, 2 SpareDeal, 3 Open, 4 Race, 5 Audit, 6 Switch")?,
			hosts: gauge("pacer_hosts", "Registered Hosts")?,
			commits: gauge("pacer_sprint_commits", "Hosts that committed in the race of this epoch")?,
			claimed_nonces: gauge("pacer_sprint_nonces", "Nonces that Hosts claim in the race of this epoch")?,
			weight: register(
				GaugeVec::<U64>::new(Opts::new("pacer_host_weight", "Weight of a Host in this epoch"), &["host", "kind"])?,
				registry,
			)?,
		})
	}
}

/// The task. Ends when the client does.
pub async fn run(client: Arc<FullClient>, backend: Arc<FullBackend>, registry: Option<Registry>) {
	let metrics = registry.as_ref().and_then(|registry| match Metrics::register(registry) {
		Ok(metrics) => Some(metrics),
		Err(error) => {
			log::warn!(target: LOG, "no Pacer metrics: {error}");
			None
		}
	});
	let mut finalized = client.finality_notification_stream().fuse();
	let mut imported = client.import_notification_stream().fuse();
	let mut seen: Option<(EpochIndex, Phase)> = None;
	loop {
		futures::select! {
			block = finalized.next().fuse() => {
				let Some(block) = block else { return };
				if let Some(mut storage) = backend.offchain_storage() {
					storage.set(STORAGE_PREFIX, FINALIZED_KEY, &(block.header.number(), block.hash).encode());
				}
			}
			block = imported.next().fuse() => {
				let Some(block) = block else { return };
				if block.is_new_best {
					let api = client.runtime_api();
					match api.clock(block.hash) {
						Ok(clock) => observe(&client, block.hash, &clock, &mut seen, metrics.as_ref()),
						Err(error) => log::debug!(target: LOG, "no clock at block {}: {error}", block.header.number()),
					}
				}
			}
		}
	}
}

fn observe(
	client: &FullClient,
	at: <Block as sp_runtime::traits::Block>::Hash,
	clock: &ClockView,
	seen: &mut Option<(EpochIndex, Phase)>,
	metrics: Option<&Metrics>,
) {
	let now = &clock.now;
	let new_phase = *seen != Some((now.epoch, now.phase));
	let new_epoch = seen.map(|(epoch, _)| epoch) != Some(now.epoch);
	if new_phase {
		let seconds = now.phase_end.saturating_sub(now.slot) * clock.params.slot_ms / 1_000;
		log::info!(target: LOG, "epoch {}: {} begins, {seconds} s", now.epoch, now.phase.name());
		*seen = Some((now.epoch, now.phase));
	}
	if let Some(metrics) = metrics {
		metrics.epoch.set(now.epoch.into());
		metrics.phase.set(now.phase as u64);
		if matches!(now.phase, Phase::Race | Phase::Audit) {
			if let Ok(sprint) = client.runtime_api().sprint(at, now.epoch) {
				metrics.commits.set(sprint.commits.len() as u64);
				metrics.claimed_nonces.set(sprint.commits.iter().map(|c| u64::from(c.count)).sum());
			}
		}
	}
	if !new_epoch {
		return;
	}
	let Ok(hosts) = client.runtime_api().hosts(at) else { return };
	if let Some(metrics) = metrics {
		metrics.hosts.set(hosts.len() as u64);
		metrics.weight.reset();
		for host in &hosts {
			let name = host.account.to_string();
			metrics.weight.with_label_values(&[name.as_str(), "work"]).set(host.work);
			metrics.weight.with_label_values(&[name.as_str(), "consensus"]).set(host.consensus);
		}
	}
	let total: u64 = hosts.iter().map(|h| h.consensus).sum::<u64>().max(1);
	for host in hosts.iter().filter(|h| h.consensus > 0) {
		let percent = host.consensus as f64 * 100.0 / total as f64;
		log::info!(target: LOG, "  {}: work {}, consensus {} ({percent:.1}%)", host.account, host.work, host.consensus);
	}
}
