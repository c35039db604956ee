//! The client with which an agent speaks to other Hosts' agents.
//!
//! Their addresses come from the chain, where whoever has a bond writes what it likes: also the address of a machine
//! behind this agent's firewall, to have the agent knock there. So an address counts only if it is public, unless the
//! operator says that this network is a private one.
//!
//! Invariants
//! 1. A name is judged by the addresses that are connected to, and not by an earlier look at them.
//! 2. No redirect is followed and no proxy asked: both would choose another address after the check.

use std::{
	net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
	sync::Arc,
	time::Duration,
};

use reqwest::{
	dns::{Addrs, Name, Resolve, Resolving},
	redirect::Policy,
	Method, RequestBuilder, Url,
};

use crate::error::{Error, Result};

/// How long connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an unused connection is kept.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Which addresses an agent connects to when the chain names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
	/// Those that anyone on the Internet could connect to.
	Public,
	/// Also loopback, link-local and private ones: for networks that live on one machine or behind one router.
	Anywhere,
}

/// A client for other agents; cheap to clone.
#[derive(Clone, Debug)]
pub struct Peers {
	http: reqwest::Client,
	reach: Reach,
}

impl Peers {
	/// A client with this reach.
	///
	/// # Errors
	/// If the system gives no client.
	pub fn new(reach: Reach) -> Result<Self> {
		let builder = reqwest::Client::builder()
			.connect_timeout(CONNECT_TIMEOUT)
			.pool_idle_timeout(IDLE_TIMEOUT)
			.redirect(Policy::none())
			.no_proxy();
		let builder = match reach {
			Reach::Public => builder.dns_resolver(Arc::new(PublicOnly)),
			Reach::Anywhere => builder,
		};
		Ok(Self { http: builder.build().map_err(|e| Error::Settings(e.to_string()))?, reach })
	}

	/// Begins a GET. An error says that the address is none, or out of reach.
	pub fn get(&self, url: &str) -> Result<RequestBuilder, String> {
		self.request(Method::GET, url)
	}

	/// Begins a POST. An error says that the address is none, or out of reach.
	pub fn post(&self, url: &str) -> Result<RequestBuilder, String> {
		self.request(Method::POST, url)
	}

	fn request(&self, method: Method, url: &str) -> Result<RequestBuilder, String> {
		let url = Url::parse(url).map_err(|e| e.to_string())?;
		let host = url.host_str().ok_or("an address without a host")?;
		// Names are judged when they are resolved; what is written as numbers is never resolved. The parser has already
		// turned every way to write an IPv4 address into the usual one.
		let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
		if self.reach == Reach::Public && literal.is_some_and(|ip| !is_public(ip)) {
			return Err(format!("{host} is no public address"));
		}
		Ok(self.http.request(method, url))
	}
}

/// Resolves names as the system does, and leaves out addresses that are not public.
struct PublicOnly;

impl Resolve for PublicOnly {
	fn resolve(&self, name: Name) -> Resolving {
		Box::pin(async move {
			let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
			let public: Vec<SocketAddr> = found.into_iter().filter(|address| is_public(address.ip())).collect();
			if public.is_empty() {
				return Err(format!("{} has no public address", name.as_str()).into());
			}
			Ok(Box::new(public.into_iter()) as Addrs)
		})
	}
}

/// Whether anyone on the Internet could connect to this address: by the IANA registries of special-purpose addresses.
pub fn is_public(ip: IpAddr) -> bool {
	match ip {
		IpAddr::V4(ip) => is_public_v4(ip),
		IpAddr::V6(ip) => is_public_v6(ip),
	}
}

/// A public number behind which every machine of one large provider finds its host, with its certificates.
const AZURE_HOST: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

fn is_public_v4(ip: Ipv4Addr) -> bool {
	let [a, b, c, _] = ip.octets();
	!matches!(
		(a, b, c),
		// This network, private, shared with a provider, loopback, link-local.
		(0 | 10 | 127, _, _) | (100, 64..=127, _) | (169, 254, _) | (172, 16..=31, _) | (192, 168, _)
		// Protocols' own, documentation, old relays, benchmarks.
		| (192, 0, 0 | 2) | (192, 88, 99) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113)
		// Multicast, reserved, broadcast.
		| (224..=255, _, _)
	) && ip != AZURE_HOST
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
	let [a, b, c, d, e, f, g, h] = ip.segments();
	let embedded = |high: u16, low: u16| is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
	match (a, b) {
		// IPv4 in IPv6 clothes, and behind a translator.
		(0, 0) if (c, d, e, f) == (0, 0, 0, 0xFFFF) => embedded(g, h),
		(0x64, 0xFF9B) if (c, d, e, f) == (0, 0, 0, 0) => embedded(g, h),
		// Protocols' own, tunnels among them, and documentation.
		(0x2001, 0..=0x1FF | 0xDB8) | (0x3FFF, 0..=0xFFF) => false,
		(0x2002, _) => embedded(b, c),
		// All that is handed out to anyone lies in 2000::/3.
		_ => a & 0xE000 == 0x2000,
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn address_should_be_public_only_when_anyone_could_reach_it() {
		let public = |text: &str| is_public(text.parse().unwrap());
		for text in "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 169.253.0.1 172.15.0.1 172.32.0.1 \
			192.0.1.1 192.167.0.1 223.255.255.255 2606:4700::1111 2a00::1 2001:200::1 ::ffff:8.8.8.8 \
			64:ff9b::808:808 2002:808:808::1"
			.split_whitespace()
		{
			assert!(public(text), "{text}");
		}
		for text in "0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 127.255.0.1 169.254.169.254 172.16.0.1 172.31.255.255 \
			192.0.0.8 192.0.2.1 192.168.1.1 198.18.0.1 203.0.113.9 224.0.0.1 255.255.255.255 :: ::1 ::7f00:1 \
			fe80::1 fc00::1 fd12::1 ff02::1 2001::1 2001:db8::1 3fff::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 \
			64:ff9b::7f00:1 64:ff9b:1::808:808 2002:7f00:1::1 2002:a9fe:a9fe::1 fec0::1"
			.split_whitespace()
		{
			assert!(!public(text), "{text}");
		}
	}

	#[test]
	fn private_address_should_be_refused_however_it_is_written() {
		let (peers, anywhere) = (Peers::new(Reach::Public).unwrap(), Peers::new(Reach::Anywhere).unwrap());
		for url in "http://127.0.0.1:9944/ http://127.1/ http://2130706433/ http://0x7f.0.0.1/ http://0177.0.0.1/ \
			https://[::1]:443/ http://[::ffff:169.254.169.254]/ http://user:word@10.0.0.1/ http://１２７.0.0.1/"
			.split_whitespace()
		{
			assert!(peers.get(url).is_err_and(|why| why.contains("no public address")), "{url}");
			assert!(peers.post(url).is_err() && anywhere.get(url).is_ok(), "{url}");
		}
		assert!(peers.get("http://1.1.1.1/").is_ok() && peers.get("https://agent.example:8443/x").is_ok());
		assert!(peers.get("not an address").is_err());
	}

	#[tokio::test]
	async fn name_should_be_out_of_reach_when_it_stands_for_a_private_address() {
		let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
		let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
		let router = axum::Router::new().route("/", axum::routing::get(|| async { "here" }));
		tokio::spawn(async move { axum::serve(listener, router).await });
		let failed = Peers::new(Reach::Public).unwrap().get(&url).unwrap().send().await.unwrap_err();
		assert!(format!("{failed:?}").contains("no public address"), "{failed:?}");
		let answered = Peers::new(Reach::Anywhere).unwrap().get(&url).unwrap().send().await.unwrap();
		assert_eq!(answered.text().await.unwrap(), "here");
	}

	#[tokio::test]
	async fn redirect_should_not_be_followed() {
		let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
		let url = format!("http://{}", listener.local_addr().unwrap());
		let elsewhere = axum::response::Redirect::temporary("/there");
		let router = axum::Router::new()
			.route("/here", axum::routing::get(move || async { elsewhere }))
			.route("/there", axum::routing::get(|| async { "there" }));
		tokio::spawn(async move { axum::serve(listener, router).await });
		let peers = Peers::new(Reach::Anywhere).unwrap();
		let answered = peers.get(&format!("{url}/here")).unwrap().send().await.unwrap();
		assert_eq!(answered.status().as_u16(), 307);
	}
}
