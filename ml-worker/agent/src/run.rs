//! Puts the parts together and runs them.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use futures::future::BoxFuture;
use tokio::{
	net::TcpListener,
	sync::{watch, Semaphore},
	task::JoinSet,
};

use crate::{
	app::{App, MAX_CLIENTS, MAX_EXECUTIONS},
	chain::{
		follow::{self, Head},
		once::OneShots,
		rpc::Node,
		Api, View,
	},
	cli::{ProveArgs, ProxyArgs, RunArgs, SprintCommand, StatusArgs},
	engine::{key::EngineKey, Engines, Need},
	error::{Error, Result},
	gateway::auth::{parse_account, ApiKeys},
	keys::possession_hash,
	ledger::{batcher::Batcher, queues::Queues, sequences::Sequences},
	peers::{Peers, CONNECT_TIMEOUT, IDLE_TIMEOUT},
	proxy::{self, Proxy},
	server::{self, Service},
	signing::Gate,
	sprint::{
		audit::Auditor,
		check::Recompute,
		dispute::Disputer,
		driver::Driver,
		report::{Audit, Choice},
		serve::ListServer,
	},
	status,
	store::{bundles::Bundles, DataDir},
	verifier::Verifier,
	wire::to_hex,
};

/// Time between two steps of a race: more often than blocks come.
const RACE_PERIOD: Duration = Duration::from_millis(400);
/// Time that answers under way get when the process is told to stop.
const GRACE: Duration = Duration::from_secs(3);
/// Time between two clean-ups.
const PRUNE_PERIOD: Duration = Duration::from_secs(60);

/// A client for addresses that the operator named.
pub fn http_client() -> Result<reqwest::Client> {
	engine_client(None)
}

/// The same for engines, which are shown the key.
pub fn engine_client(key: Option<&EngineKey>) -> Result<reqwest::Client> {
	let builder = reqwest::Client::builder()
		.default_headers(EngineKey::headers(key))
		.connect_timeout(CONNECT_TIMEOUT)
		.redirect(reqwest::redirect::Policy::none())
		.pool_idle_timeout(IDLE_TIMEOUT);
	builder.build().map_err(|e| Error::Settings(e.to_string()))
}

/// Binds, says where, and serves until the process is told to stop.
async fn serve(listen: SocketAddr, router: Router) -> Result<()> {
	let listener = TcpListener::bind(listen).await?;
	let address = listener.local_addr()?;
	// One line for whoever started this process; everything else goes to the log.
	println!("{}", serde_json::json!({"listening": address.to_string()}));
	tracing::info!("listening on http://{address}");
	let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
	let graceful = axum::serve(listener, router).with_graceful_shutdown(async {
		stop_signal().await;
		tracing::info!("stopping");
		let _ = stop.send(());
	});
	tokio::select! {
		served = graceful => Ok(served?),
		// Answers under way get a little time.
		() = async { let _ = stopped.await; tokio::time::sleep(GRACE).await } => Ok(()),
	}
}

/// Ends when the process is told to stop.
async fn stop_signal() {
	let ctrl_c = async {
		if tokio::signal::ctrl_c().await.is_err() {
			std::future::pending::<()>().await;
		}
	};
	#[cfg(unix)]
	let terminate = async {
		match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
			Ok(mut signal) => {
				signal.recv().await;
			}
			Err(_) => std::future::pending().await,
		}
	};
	#[cfg(not(unix))]
	let terminate = std::future::pending::<()>();
	tokio::select! {
		() = ctrl_c => {},
		() = terminate => {},
	}
}

/// Calls `step` for every new view, and whenever `woken` ends, until the view's sender is gone. Errors are said and do not
/// end it. `woken` is dropped when a view comes first, so it must not lose anything by that.
async fn drive<S, F, W>(name: &'static str, mut head: Head, mut part: S, step: F, woken: W)
where
	F: for<'a> Fn(&'a mut S, Arc<View>) -> BoxFuture<'a, Result<()>>,
	W: for<'a> Fn(&'a mut S) -> BoxFuture<'a, ()>,
{
	loop {
		tokio::select! {
			changed = head.changed() => if changed.is_err() { return },
			() = woken(&mut part) => {},
		}
		let Some(view) = head.borrow_and_update().clone() else { continue };
		if let Err(e) = step(&mut part, view).await {
			tracing::warn!("{name}: {e}");
		}
	}
}

/// For parts that only blocks move.
fn never<S>(_: &mut S) -> BoxFuture<'_, ()> {
	Box::pin(std::future::pending())
}

/// Moves a race that is under way more often than blocks come.
fn while_racing(driver: &mut Driver) -> BoxFuture<'_, ()> {
	if driver.is_racing() {
		Box::pin(tokio::time::sleep(RACE_PERIOD))
	} else {
		never(driver)
	}
}

/// `pacer-agent run`
pub async fn run(args: RunArgs) -> Result<()> {
	let metrics = metrics_exporter_prometheus::PrometheusBuilder::new();
	let metrics = metrics.install_recorder().map_err(|e| Error::Settings(e.to_string()))?;
	let key = args.key.load()?;
	let data = Arc::new(DataDir::open(&args.data_dir, &key.public())?);
	let keys = ApiKeys::open(args.api_keys_file.clone())?;
	let engines = Engines::new(&args.engines, &engine_client(args.engine_key.load()?.as_ref())?);
	let peers = Peers::new(args.reach.reach())?;
	if args.engines.is_empty() {
		tracing::warn!("no engine was named: this agent neither races nor executes");
	}
	let node = Arc::new(Node::new(&args.node));
	let genesis = node.wait_for_genesis().await;
	let api = Api::new(node.clone(), genesis);
	let queues = Arc::new(Queues::open(&data)?);
	let (views, head) = watch::channel(None);
	let app = Arc::new(App {
		api: api.clone(),
		key: key.clone(),
		head: head.clone(),
		engines: engines.clone(),
		peers: peers.clone(),
		gate: Gate::default(),
		queues: queues.clone(),
		sequences: Sequences::open(&data, queues.clone())?,
		bundles: Bundles::open(data.path("inferences"))?,
		running: Default::default(),
		lists: ListServer::new(api.clone(), data.clone()),
		keys,
		clients: Arc::new(Semaphore::new(MAX_CLIENTS)),
		executions: Arc::new(Semaphore::new(MAX_EXECUTIONS)),
		payers: Default::default(),
	});

	let mut tasks = JoinSet::new();
	tasks.spawn(follow::run(node, api.clone(), key.clone(), views));
	tasks.spawn(engines.clone().watch());
	let driver = Driver::new(api.clone(), key.clone(), engines.clone(), data.clone());
	tasks.spawn(drive("race", head.clone(), driver, |s, v| Box::pin(async move { s.step(&v).await }), while_racing));
	let once = || OneShots::new(api.clone(), key.clone());
	// The windows of a dispute are short: what a check or an evaluation found is used at once.
	let auditor = Auditor::new(api.clone(), engines, peers, once());
	tasks.spawn(drive(
		"audit",
		head.clone(),
		auditor,
		|s, v| Box::pin(async move { s.step(&v).await }),
		|s| Box::pin(s.finished()),
	));
	let disputer = Disputer::new(api.clone(), data, once());
	tasks.spawn(drive(
		"disputes",
		head.clone(),
		disputer,
		|s, v| Box::pin(async move { s.step(&v).await }),
		|s| Box::pin(s.finished()),
	));
	let batcher = Batcher::new(api.clone(), key.clone(), queues);
	tasks.spawn(drive("records", head.clone(), batcher, |s, v| Box::pin(async move { s.step(&v).await }), never));
	let verifier = Verifier::new(app.clone(), once());
	tasks.spawn(drive("verification", head.clone(), verifier, |s, v| Box::pin(async move { s.step(&v).await }), never));
	tasks.spawn(prune(app.clone()));

	tokio::select! {
		served = serve(args.listen, server::routes(Service { app, metrics: Some(metrics) })) => served,
		ended = ended(&mut tasks) => Err(ended),
	}
}

/// Waits for a task that ends, which none should.
async fn ended(tasks: &mut JoinSet<()>) -> Error {
	match tasks.join_next().await {
		Some(Err(e)) => Error::Settings(format!("a part of the agent failed: {e}")),
		_ => Error::Settings("a part of the agent ended".into()),
	}
}

async fn prune(app: Arc<App>) {
	loop {
		tokio::time::sleep(PRUNE_PERIOD).await;
		let Ok(view) = app.view() else { continue };
		let shared = app.clone();
		let pruned = tokio::task::spawn_blocking(move || shared.bundles.prune(view.epoch())).await;
		if let Ok(Err(e)) = pruned {
			tracing::warn!("old inferences could not be deleted: {e}");
		}
	}
}

async fn within<T>(what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
	match tokio::time::timeout(Duration::from_secs(20), future).await {
		Ok(result) => result,
		Err(_) => Err(Error::Node(format!("{what} took too long"))),
	}
}

/// `pacer-agent status`
pub async fn status(args: StatusArgs) -> Result<()> {
	let status = match &args.agent {
		Some(agent) => status::fetch(&http_client()?, agent).await.map_err(|e| Error::peer(agent, e))?,
		None => {
			let node = Arc::new(Node::new(&args.node));
			let genesis = within("the node", node.genesis()).await?;
			let best = node.best().await?;
			let height = node.header(best).await?.and_then(|h| h.height()).unwrap_or(0);
			status::from_node(&Api::new(node, genesis).at(best), height).await?
		}
	};
	print!("{}", status::screen(&status));
	Ok(())
}

/// `pacer-agent proxy`
pub async fn proxy(args: ProxyArgs) -> Result<()> {
	let (key, developer) = args.load()?;
	let node = Arc::new(Node::new(&args.node));
	let genesis = node.wait_for_genesis().await;
	tracing::info!("signing for {developer}");
	let proxy = Proxy {
		api: Api::new(node, genesis),
		key,
		developer,
		ta_url: args.ta.trim_end_matches('/').to_owned(),
		http: http_client()?,
		under_way: Default::default(),
	};
	serve(args.listen, proxy::routes(Arc::new(proxy))).await
}

/// `pacer-agent prove`
pub async fn prove(args: ProveArgs) -> Result<()> {
	let key = args.key.load()?;
	let account = parse_account(&args.account).ok_or_else(|| Error::Settings("--account is no account".into()))?;
	let genesis = within("the node", Node::new(&args.node).genesis()).await?;
	let proof = key.sign(&possession_hash(&genesis, &account));
	println!("{}", serde_json::json!({"duty_key": to_hex(key.public()), "proof": to_hex(proof)}));
	Ok(())
}

/// `pacer-agent sprint`. Returns whether every list that was looked at holds.
pub async fn sprint(command: SprintCommand) -> Result<bool> {
	let SprintCommand::Audit(args) = command;
	let parse = |host: &String| parse_account(host).ok_or_else(|| Error::Settings("--host is no account".into()));
	let only = args.host.as_ref().map(parse).transpose()?;
	let node = Arc::new(Node::new(&args.node));
	let genesis = within("the node", node.genesis()).await?;
	let peers = Peers::new(args.reach.reach())?;
	let recompute = match args.engine.as_str() {
		"reference" => Recompute::Reference,
		url => {
			let engines = Engines::new(&[url.to_owned()], &engine_client(args.engine_key.load()?.as_ref())?);
			engines.check().await;
			if engines.able(Need::Race) == 0 {
				return Err(Error::Engine(format!("{url}: {}", engines.why_unable(Need::Race))));
			}
			Recompute::Now(engines)
		}
	};
	let choice = if args.all { Choice::All } else { Choice::Sample { private: args.samples } };
	let audit = Audit { api: Api::new(node, genesis), peers, recompute, choice };
	let report = audit.run(args.epoch, only.as_ref()).await?;
	if args.json {
		println!("{}", serde_json::to_string_pretty(&report).map_err(|e| Error::Settings(e.to_string()))?);
	} else {
		print!("{report}");
	}
	Ok(report.holds())
}
