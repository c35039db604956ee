//! Bit-equality of the engine's Sprint with the reference, whatever the shape, the batch, the kernels and the path.

use std::{rc::Rc, sync::Arc};

use pacer_engine::sprint::{evaluate_all, Form, Kernels, Network, Pass, Path, WeightStore};
use pacer_sprint::{evaluate, threshold_for_one_in, Config, Hash, Preset};
use proptest::prelude::*;
use tch::Device;

/// Everything that computes on a CPU: kernels, path, and how the weights lie.
const WAYS: [(Kernels, Path, Form); 5] = [
    (Kernels::Host, Path::Int8, Form::Expanded),
    (Kernels::Host, Path::Int8, Form::Packed),
    (Kernels::Host, Path::Bf16, Form::Expanded),
    (Kernels::Torch, Path::Int8, Form::Packed),
    (Kernels::Torch, Path::Bf16, Form::Expanded),
];

fn store(config: Config, seed: Hash, form: Form) -> Arc<WeightStore> {
    Arc::new(WeightStore::derive(config, seed, form, 2, &|| {}).expect("derived"))
}

fn network(config: Config, seed: Hash, (kernels, path, form): (Kernels, Path, Form)) -> Rc<Network> {
    // Tests run beside each other: more threads than cores would mostly wait for each other.
    tch::set_num_threads(1);
    Rc::new(Network::new(store(config, seed, form), Device::Cpu, kernels, path, &|| {}).expect("built"))
}

/// Compares every state hash, output, permuted output, sum and verdict.
fn compare(config: Config, seed: Hash, host: Hash, threshold: u64, nonces: &[u64]) {
    let expected: Vec<_> =
        nonces.iter().map(|nonce| evaluate(&config, &seed, threshold, &host, *nonce).expect("valid")).collect();
    for way in WAYS {
        let found = evaluate_all(network(config, seed, way), host, threshold, nonces.to_vec()).expect("evaluated");
        for ((nonce, found), expected) in nonces.iter().zip(found).zip(&expected) {
            assert_eq!(found, *expected, "{way:?}, {config:?}, nonce {nonce}");
        }
    }
}

#[test]
fn engine_should_equal_reference_when_preset_is_dev() {
    let threshold = threshold_for_one_in(4, 256).expect("in table");
    for case in 0..4u8 {
        let first = 1u64 << (case * 20);
        let nonces: Vec<u64> = (first..first + 97).chain([u64::MAX]).collect();
        compare(Preset::Dev.config(), [case; 32], [0x80 | case; 32], threshold, &nonces);
    }
}

#[test]
fn engine_should_equal_reference_when_shape_is_that_of_larger_presets() {
    // One layer, or three, of the shapes that a chain can select; outputs are cut to save time.
    let shape = |preset: Preset, layers| Config { layers, outputs: 512, ..preset.config() };
    for config in [shape(Preset::Bench, 3), shape(Preset::Whitepaper, 2), shape(Preset::Wide, 1)] {
        compare(config, [3; 32], [4; 32], 1 << 20, &[0, 1 << 33]);
    }
}

#[test]
fn engine_should_equal_reference_when_a_batch_is_large() {
    // So many rows that products are computed in blocks, and not a multiple of anything.
    let config = Config { layers: 2, outputs: 1024, ..Preset::Bench.config() };
    let network = network(config, [5; 32], WAYS[0]);
    tch::set_num_threads(2);
    let nonces: Vec<u64> = (0..201).collect();
    let found = evaluate_all(network, [6; 32], 1 << 20, nonces).expect("evaluated");
    for nonce in [0usize, 1, 99, 100, 101, 150, 200] {
        assert_eq!(found[nonce], evaluate(&config, &[5; 32], 1 << 20, &[6; 32], nonce as u64).expect("valid"));
    }
}

#[test]
fn reference_should_give_the_same_outputs_for_many_nonces_as_one_at_a_time() {
    let (config, host) = (Config { positions: 3, ..Preset::Dev.config() }, [4; 32]);
    let sprint = pacer_sprint::Sprint::new(config, [3; 32]).expect("valid");
    let nonces = [9, 0, u64::MAX, 1 << 40];
    let together = sprint.outputs_of_many(&host, &nonces).expect("evaluated");
    let apart: Vec<i8> =
        nonces.iter().flat_map(|nonce| evaluate(&config, &[3; 32], 0, &host, *nonce).expect("valid").y).collect();
    assert_eq!(together, apart);
    assert!(sprint.layer_of_many(0, &[0; 100]).is_err() && sprint.layer(0, &[0; 2 * 3 * 64]).is_err());
}

#[test]
fn pass_should_refuse_to_begin_without_nonces() {
    assert!(Pass::new(network(Preset::Dev.config(), [8; 32], WAYS[0]), [9; 32], Vec::new()).is_err());
}

#[test]
fn host_kernels_should_be_refused_on_other_devices() {
    let store = store(Preset::Dev.config(), [1; 32], Form::Packed);
    assert!(Network::new(store, Device::Cuda(0), Kernels::Host, Path::Int8, &|| {}).is_err());
}

#[test]
fn hit_rate_should_be_what_the_threshold_says() {
    let network = network(Preset::Dev.config(), [10; 32], WAYS[0]);
    for (one_in, bound) in [(4, 300.0), (16, 170.0)] {
        let threshold = threshold_for_one_in(one_in, 256).expect("in table");
        let mut hits = 0u32;
        for start in (0..20_000u64).step_by(1000) {
            let mut pass = Pass::new(network.clone(), [11; 32], (start..start + 1000).collect()).expect("begun");
            while !pass.step().expect("step") {}
            hits += pass.outcomes(&[11; 32], threshold).iter().filter(|outcome| outcome.appropriate).count() as u32;
        }
        // Nearly five standard deviations.
        let off = f64::from(hits) - 20_000.0 / f64::from(one_in);
        assert!(off.abs() < bound, "{hits} of 20,000 at one in {one_in}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn engine_should_equal_reference_for_any_shape(
        layers in 1u32..4, width in 1u32..9, heads in 1u32..5, head_width in 1u32..40, ffn in 1u32..20, outputs in 1u32..20,
        positions in 1u32..7, seed: [u8; 32], host: [u8; 32], nonces in prop::collection::vec(any::<u64>(), 1..9),
    ) {
        // The product of heads and head width must be a multiple of 8.
        let config = Config { layers, width: 8 * width, heads: 8 * heads, head_width, ffn: 8 * ffn, outputs: 8 * outputs, positions };
        compare(config, seed, host, 1 << 24, &nonces);
    }
}
