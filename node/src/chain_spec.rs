//! Chain specifications: presets of the runtime, or a file.

use pacer_runtime::{genesis, WASM_BINARY};
use sc_service::{ChainType, GenericChainSpec, Properties};

/// A specification without extensions.
pub type ChainSpec = GenericChainSpec;

fn properties() -> Properties {
	let mut properties = Properties::new();
	properties.insert("tokenSymbol".into(), pacer_types::TOKEN_SYMBOL.into());
	properties.insert("tokenDecimals".into(), pacer_types::DECIMALS.into());
	properties.insert("ss58Format".into(), pacer_types::SS58_PREFIX.into());
	properties
}

fn preset(name: &str, title: &str, id: &str, kind: ChainType) -> Result<ChainSpec, String> {
	let wasm = WASM_BINARY.ok_or("this binary was built with SKIP_WASM_BUILD and holds no runtime")?;
	Ok(ChainSpec::builder(wasm, None)
		.with_name(title)
		.with_id(id)
		.with_chain_type(kind)
		.with_protocol_id("pacer")
		.with_properties(properties())
		.with_genesis_config_preset_name(name)
		.build())
}

/// The specification that `--chain` names.
pub fn load(id: &str) -> Result<ChainSpec, String> {
	match id {
		"dev" | "development" => preset(genesis::DEVELOPMENT, "Pacer Development", "pacer_dev", ChainType::Development),
		"" | "local" => preset(genesis::LOCAL, "Pacer Local", "pacer_local", ChainType::Local),
		path => ChainSpec::from_json_file(path.into()),
	}
}
