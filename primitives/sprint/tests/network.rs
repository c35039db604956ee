//! Presets, bounds, errors, the verdict at its threshold. `steps.rs` compares the steps with each other over random shapes.

use pacer_sprint::{
	appropriate, evaluate, is_appropriate, power_of_half, signed, state_hash, threshold::THRESHOLDS, threshold_for_one_in,
	Config, Error, Preset, Sprint, MATRICES_PER_LAYER,
};

const SEED: [u8; 32] = [7; 32];
const HOST: [u8; 32] = [9; 32];

fn dev() -> Sprint {
	Sprint::new(Preset::Dev.config(), SEED).expect("valid")
}

#[test]
fn presets_should_be_valid_and_have_a_default_threshold() {
	for (index, preset) in Preset::ALL.into_iter().enumerate() {
		assert_eq!(preset.config().validate(), Ok(()));
		assert_eq!(Preset::from_index(index as u8), Some(preset));
		assert_eq!(usize::from(preset.index()), index);
		assert_eq!(Preset::from_name(preset.name()), Some(preset));
		assert!(preset.default_threshold() < 1 << 32);
	}
	assert_eq!(Preset::from_index(4), None);
	assert_eq!(threshold_for_one_in(900, 256), Some(155_029_188));
	assert_eq!(Preset::Whitepaper.config().weights(), 2_285_895_680);
	// Of 18.3 G integer operations, two a multiply-add, 17.3 G are needed.
	let gops = Preset::Whitepaper.config().needed_macs() * 2 / 100_000_000;
	assert!((172..=174).contains(&gops), "{gops}");
}

#[test]
fn thresholds_should_rise_when_hits_get_rarer() {
	for pair in THRESHOLDS.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
		assert!(pair[0].1 < pair[1].1 && pair[0].2 < pair[1].2);
	}
}

#[test]
fn configuration_should_be_refused_when_a_bound_is_broken() {
	let dev = Preset::Dev.config();
	for config in [
		Config { layers: 0, ..dev },
		Config { positions: 0, ..dev },
		Config { positions: 65, ..dev },
		Config { width: 60, ..dev },
		Config { width: 0, ..dev },
		Config { ffn: 16_392, ..dev },
		Config { heads: 0, ..dev },
		Config { heads: u32::MAX, ..dev },
		Config { head_width: 2048, ..dev },
		Config { outputs: 0, ..dev },
		Config { outputs: 257, ..dev },
	] {
		assert!(matches!(Sprint::new(config, SEED), Err(Error::Config(_))), "{config:?}");
	}
}

#[test]
fn steps_should_refuse_wrong_lengths_and_unknown_parts() {
	let sprint = dev();
	assert_eq!(sprint.layer(0, &[0; 255]), Err(Error::Length { expected: 256, found: 255 }));
	assert_eq!(sprint.layer(4, &[0; 256]), Err(Error::Layer(4)));
	assert_eq!(sprint.output(&[0; 256]), Err(Error::Length { expected: 64, found: 256 }));
	assert!(sprint.score(&HOST, 0, &[0; 255]).is_err());
	assert!(sprint.weight_row(29, 0).is_err());
	assert!(sprint.weight_row(0, 64).is_err());
	assert!(sprint.weight_stream(29).is_err());
}

#[test]
fn matrices_should_add_up_to_the_weights() {
	for preset in Preset::ALL {
		let config = preset.config();
		let sum: u64 = (0..config.matrices()).map(|m| config.matrix(m).expect("exists").packed_len() as u64 * 2).sum();
		assert_eq!(sum, config.weights());
		assert_eq!(config.matrices(), config.layers * MATRICES_PER_LAYER + 1);
		assert_eq!(config.matrix(config.matrices()), None);
	}
}

#[test]
fn table_should_halve_every_sixteen_steps() {
	assert_eq!(power_of_half(0), 256);
	assert_eq!(power_of_half(1), 245);
	assert_eq!(power_of_half(16), 128);
	assert_eq!(power_of_half(128), 1);
	assert!((129..=255).all(|n| power_of_half(n) == 0));
	for n in 0..=255u8 {
		assert_eq!(power_of_half(n), (256.0 * 2f64.powf(-f64::from(n) / 16.0)).floor() as i32);
	}
}

#[test]
fn permutation_should_name_every_index_once() {
	let mut p = dev().permutation(&HOST, 12);
	p.sort_unstable();
	assert!(p.into_iter().eq(0..256));
}

#[test]
fn evaluation_should_agree_with_the_steps() {
	let config = Preset::Dev.config();
	let threshold = threshold_for_one_in(4, 256).expect("in table");
	let sprint = dev();
	assert_eq!(signed(&[0, 127, 128, 255]), [0, 127, -128, -1]);
	let mut hits = 0;
	for nonce in 0..40 {
		let whole = evaluate(&config, &SEED, threshold, &HOST, nonce).expect("valid");
		assert_eq!(whole.states[0], state_hash(&sprint.input(&HOST, nonce)));
		assert_eq!(whole.appropriate, is_appropriate(&config, &SEED, threshold, &HOST, nonce).expect("valid"));
		assert_eq!(whole.appropriate, sprint.score(&HOST, nonce, &whole.y).expect("length").is_appropriate(threshold));
		hits += u32::from(whole.appropriate);
	}
	assert!((3..=19).contains(&hits), "{hits} of 40, expected 10");
}

#[test]
fn verdict_should_be_exact_at_the_threshold() {
	// dot^2 * 2^32 = C * zz * tt exactly: 16 * 2^32 = C * 64.
	assert!(appropriate(4, 8, 8, 1 << 30));
	assert!(!appropriate(4, 8, 8, (1 << 30) + 1));
	assert!(!appropriate(-4, 8, 8, 1));
	assert!(!appropriate(0, 8, 8, 0));
	assert!(!appropriate(1, u64::MAX, u64::MAX, u64::MAX));
}
