//! Bit-equality of the engine's Sprint with the reference, whatever the shape, the batch and the kernels.

use std::rc::Rc;

use pacer_engine::sprint::{evaluate_all, Kernels, Network, Pass, Workspace};
use pacer_sprint::{evaluate, threshold_for_one_in, Config, Hash, Preset};
use proptest::prelude::*;
use tch::Device;

const BOTH: [Kernels; 2] = [Kernels::Host, Kernels::Torch];

fn network(config: Config, seed: Hash, kernels: Kernels, threads: usize) -> Rc<Network> {
    // Tests run beside each other: more threads than cores would mostly wait for each other.
    tch::set_num_threads(1);
    Rc::new(Network::build(config, seed, Device::Cpu, kernels, threads, &mut || {}).expect("built"))
}

/// Compares every state hash, output, permuted output, sum and verdict.
fn compare(config: Config, seed: Hash, host: Hash, threshold: u64, nonces: &[u64]) {
    let expected: Vec<_> =
        nonces.iter().map(|nonce| evaluate(&config, &seed, threshold, &host, *nonce).expect("valid")).collect();
    for kernels in BOTH {
        let found = evaluate_all(network(config, seed, kernels, 2), host, threshold, nonces.to_vec()).expect("evaluated");
        for ((nonce, found), expected) in nonces.iter().zip(found).zip(&expected) {
            assert_eq!(found, *expected, "{kernels:?}, {config:?}, nonce {nonce}");
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
fn engine_should_equal_reference_when_work_is_split_over_threads() {
    // Large enough that the host kernels use more than one thread, and not divisible by two.
    let config = Config { layers: 2, outputs: 1024, ..Preset::Bench.config() };
    let network = network(config, [5; 32], Kernels::Host, 2);
    tch::set_num_threads(2);
    let nonces: Vec<u64> = (0..201).collect();
    let found = evaluate_all(network, [6; 32], 1 << 20, nonces).expect("evaluated");
    for nonce in [0usize, 1, 99, 100, 101, 150, 200] {
        assert_eq!(found[nonce], evaluate(&config, &[5; 32], 1 << 20, &[6; 32], nonce as u64).expect("valid"));
    }
}

#[test]
fn buffers_should_not_leak_between_passes() {
    let network = network(Preset::Dev.config(), [8; 32], Kernels::Host, 1);
    let run = |workspace: &mut Workspace, nonces: Vec<u64>| {
        let mut pass = Pass::new(network.clone(), [9; 32], 0, nonces).expect("begun");
        while !pass.step(workspace).expect("step") {}
        pass.outcomes()
    };
    let mut used = Workspace::default();
    run(&mut used, (0..300).collect());
    assert_eq!(run(&mut used, (40..50).collect()), run(&mut Workspace::default(), (40..50).collect()));
}

#[test]
fn pass_should_refuse_to_begin_without_nonces() {
    assert!(Pass::new(network(Preset::Dev.config(), [8; 32], Kernels::Host, 1), [9; 32], 0, Vec::new()).is_err());
}

#[test]
fn weights_hash_should_depend_on_the_seed_alone() {
    let dev = Preset::Dev.config();
    let hash = |seed, kernels, threads| *network(dev, seed, kernels, threads).weights_hash();
    assert_eq!(hash([1; 32], Kernels::Host, 1), hash([1; 32], Kernels::Torch, 3));
    assert_ne!(hash([1; 32], Kernels::Host, 1), hash([2; 32], Kernels::Host, 1));
}

#[test]
fn hit_rate_should_be_what_the_threshold_says() {
    let network = network(Preset::Dev.config(), [10; 32], Kernels::Host, 1);
    let mut workspace = Workspace::default();
    for (one_in, bound) in [(4, 300.0), (16, 170.0)] {
        let threshold = threshold_for_one_in(one_in, 256).expect("in table");
        let mut hits = 0u32;
        for start in (0..20_000u64).step_by(1000) {
            let mut pass = Pass::new(network.clone(), [11; 32], threshold, (start..start + 1000).collect()).expect("begun");
            while !pass.step(&mut workspace).expect("step") {}
            hits += pass.outcomes().iter().filter(|outcome| outcome.appropriate).count() as u32;
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
