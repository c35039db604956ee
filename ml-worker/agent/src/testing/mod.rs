//! Stand-ins for tests: a chain in memory and an engine over HTTP. Nothing in the running agent uses them.

mod chain;
mod engine;

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{
	app::{App, MAX_CLIENTS, MAX_EXECUTIONS},
	engine::Engines,
	gateway::auth::ApiKeys,
	ledger::{queues::Queues, sequences::Sequences},
	peers::{Peers, Reach},
	server::{routes, Service},
	signing::Gate,
	sprint::serve::ListServer,
	store::{bundles::Bundles, DataDir},
};

pub use chain::{FakeChain, MODEL};
pub use engine::{FakeEngine, Judging, Mode};

/// What an agent's services share, over a fake chain; `dir` keeps its data.
pub async fn app(chain: &FakeChain, host: usize, engines: &[&FakeEngine], dir: &std::path::Path) -> Arc<App> {
	let urls: Vec<String> = engines.iter().map(|e| e.url()).collect();
	app_with(chain, host, &urls, dir).await
}

/// The same, with engines by their URLs.
pub async fn app_with(chain: &FakeChain, host: usize, urls: &[String], dir: &std::path::Path) -> Arc<App> {
	let key = chain.key(host);
	let data = Arc::new(DataDir::open(dir, &key.public()).unwrap());
	let http = crate::run::http_client().unwrap();
	let engines = Engines::new(urls, &http);
	engines.check().await;
	let keys_file = dir.join(format!("keys-{host}"));
	std::fs::write(&keys_file, format!("sk-test {}\nsk-own local\n", "4d".repeat(32))).unwrap();
	let queues = Arc::new(Queues::open(&data).unwrap());
	let (_, head) = tokio::sync::watch::channel(Some(Arc::new(chain.view(host))));
	Arc::new(App {
		api: chain.api(),
		key,
		head,
		engines,
		peers: Peers::new(Reach::Anywhere).unwrap(),
		gate: Gate::default(),
		queues: queues.clone(),
		sequences: Sequences::open(&data, queues).unwrap(),
		bundles: Bundles::open(data.path("inferences")).unwrap(),
		running: Default::default(),
		lists: ListServer::new(chain.api(), data.clone()),
		keys: ApiKeys::open(Some(keys_file)).unwrap(),
		clients: Arc::new(Semaphore::new(MAX_CLIENTS)),
		executions: Arc::new(Semaphore::new(MAX_EXECUTIONS)),
		payers: Default::default(),
	})
}

/// Serves an agent's routes on a free port; returns the base URL.
pub async fn serve(app: Arc<App>) -> String {
	let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
	let url = format!("http://{}", listener.local_addr().unwrap());
	tokio::spawn(async move { axum::serve(listener, routes(Service { app, metrics: None })).await });
	url
}

/// Serves a list as an agent would, whatever was committed to; returns the base URL.
pub async fn serve_list(nonces: Vec<u64>) -> String {
	use axum::extract::Query;
	let page = move |Query(query): Query<std::collections::BTreeMap<String, usize>>| {
		let page: Vec<u8> = nonces.iter().skip(query["from"]).take(20).flat_map(|n| n.to_le_bytes()).collect();
		async move { page }
	};
	let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
	let url = format!("http://{}", listener.local_addr().unwrap());
	let router = axum::Router::new().route("/pacer/nonces", axum::routing::get(page));
	tokio::spawn(async move { axum::serve(listener, router).await });
	url
}
