//! Comparing a device with the reference before it may race.

use std::{rc::Rc, sync::Arc};

use super::{
    error::SprintError,
    network::Network,
    pass::{evaluate_all, Pass},
    weights::{Form, WeightStore},
};
use pacer_sprint::{evaluate, Config, Hash, Preset};

/// Small nonces are enough: inputs are hashes of them.
const DEV_NONCES: u64 = 40;
/// Host whose nonces are tried.
const HOST: Hash = [0x1f; 32];
/// A network of at most so many weights is compared in every layer, a larger one in some.
const WHOLE_UP_TO: u64 = 1 << 27;

fn differs<T: PartialEq>(found: &T, expected: &T, what: impl Fn() -> String) -> Result<(), SprintError> {
    if found == expected {
        Ok(())
    } else {
        Err(SprintError::Inexact(what()))
    }
}

/// Compares every step of some `dev` nonces.
///
/// # Errors
/// [`SprintError::Inexact`] if any step differs, or libtorch's.
pub(super) fn compare_dev(make: impl Fn(Arc<WeightStore>) -> Result<Network, SprintError>) -> Result<(), SprintError> {
    let (config, seed) = (Preset::Dev.config(), [0x5e; 32]);
    let network = Rc::new(make(Arc::new(WeightStore::derive(config, seed, Form::Expanded, 1, &|| {})?))?);
    let nonces: Vec<u64> = (0..DEV_NONCES).collect();
    let found = evaluate_all(network, HOST, 0, nonces.clone())?;
    for (nonce, found) in nonces.iter().zip(found) {
        let expected = evaluate(&config, &seed, 0, &HOST, *nonce)?;
        differs(&found, &expected, || format!("dev nonce {nonce} of the self-test differs"))?;
    }
    Ok(())
}

/// Compares a network in the shape and with the weights that will be raced: two nonces of a batch, all layers of a small
/// network or the first, the last and two others of a large one, output and verdict. `between` is called between layers.
///
/// # Errors
/// [`SprintError::Inexact`] if any of it differs, or libtorch's.
pub(super) fn compare_network(network: &Rc<Network>, batch: usize, between: &dyn Fn()) -> Result<(), SprintError> {
    let (sprint, config) = (network.sprint(), network.config());
    let batch = batch.max(2);
    let looked_at = [0, batch - 1];
    let pick = |states: Vec<Vec<i8>>| -> Vec<i8> {
        looked_at.iter().filter_map(|index| states.get(*index)).flatten().copied().collect()
    };
    let mut pass = Pass::new(network.clone(), HOST, (0..batch as u64).collect())?;
    let mut before = pick(pass.states()?);
    let inputs: Vec<i8> = looked_at.iter().flat_map(|nonce| sprint.input(&HOST, *nonce as u64)).collect();
    differs(&before, &inputs, || "an input of the self-test differs".into())?;
    let compared = compared_layers(config, sprint.seed());
    for layer in 0..config.layers {
        let look = compared.contains(&layer);
        if look {
            before = pick(pass.states()?);
        }
        pass.finish_layer()?;
        if look {
            let expected = sprint.layer_of_many(layer, &before)?;
            differs(&pick(pass.states()?), &expected, || format!("layer {layer} of the self-test differs"))?;
            before = expected;
        }
        between();
    }
    // The last layer is always among those compared.
    pass.finish_layer()?;
    let outcomes = pass.outcomes(&HOST, 0);
    for ((index, y), state) in pass
        .outputs()
        .enumerate()
        .filter(|(index, _)| looked_at.contains(index))
        .zip(before.chunks(config.width as usize))
    {
        differs(&y, &sprint.output(state)?.as_slice(), || "an output of the self-test differs".into())?;
        let score = sprint.score(&HOST, index as u64, y)?;
        differs(&(outcomes[index].dot, outcomes[index].zz), &(score.dot, score.zz), || {
            "a verdict of the self-test differs".into()
        })?;
    }
    Ok(())
}

/// Which layers are compared.
fn compared_layers(config: &Config, seed: &Hash) -> Vec<u32> {
    if config.weights() <= WHOLE_UP_TO {
        return (0..config.layers).collect();
    }
    let any = |byte: u8| u32::from(byte) % config.layers;
    let mut layers = vec![0, any(seed[0]), any(seed[1]), config.layers - 1];
    layers.dedup();
    layers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sprint::{
        host_kernels::{add_fold, Block},
        network::Kernels,
        path::Path,
    };
    use tch::Device;

    /// A device's network for a store.
    fn network_on(device: Device, path: Path) -> impl Fn(Arc<WeightStore>) -> Result<Network, SprintError> {
        move |store| Network::new(store, device, Kernels::of(device), path, &|| {})
    }

    /// Rounds instead of flooring: right for most values, and what a careless kernel would do.
    fn rounding_add_fold(block: Block<'_>, x: &mut [i8]) {
        let half = 1 << block.shift >> 1;
        let rounded: Vec<i32> = block.acc.iter().map(|acc| acc + half).collect();
        add_fold(Block { acc: &rounded, ..block }, x);
    }

    /// Clamps instead of wrapping around.
    fn clamping_add_fold(block: Block<'_>, x: &mut [i8]) {
        let clamped: Vec<i32> =
            block.acc.iter().map(|acc| (acc >> block.shift).clamp(-128, 127) << block.shift).collect();
        add_fold(Block { acc: &clamped, ..block }, x);
    }

    fn wrong(kernel: crate::sprint::network::AddFold) -> impl Fn(Arc<WeightStore>) -> Result<Network, SprintError> {
        move |store| {
            let mut network = network_on(Device::Cpu, Path::Int8)(store)?;
            network.add_fold = kernel;
            Ok(network)
        }
    }

    fn store(config: Config) -> Arc<WeightStore> {
        Arc::new(WeightStore::derive(config, [0xa7; 32], Form::Expanded, 1, &|| {}).expect("derived"))
    }

    #[test]
    fn device_should_pass_on_either_path_when_it_is_exact() {
        for path in Path::ALL {
            compare_dev(network_on(Device::Cpu, path)).expect("exact");
            let network = Rc::new(network_on(Device::Cpu, path)(store(Preset::Dev.config())).expect("built"));
            compare_network(&network, 7, &|| {}).expect("exact");
        }
    }

    #[test]
    fn device_should_be_refused_when_a_kernel_is_wrong() {
        for kernel in [rounding_add_fold, clamping_add_fold] {
            let refused = compare_dev(wrong(kernel)).expect_err("inexact");
            assert!(refused.to_string().contains("does not compute the Sprint exactly"), "{refused}");
            let network = Rc::new(wrong(kernel)(store(Preset::Dev.config())).expect("built"));
            assert!(matches!(compare_network(&network, 5, &|| {}), Err(SprintError::Inexact(_))));
        }
    }

    #[test]
    fn large_network_should_be_compared_in_its_first_and_last_layer() {
        let whitepaper = compared_layers(&Preset::Whitepaper.config(), &[200; 32]);
        assert_eq!((whitepaper.first(), whitepaper.last()), (Some(&0), Some(&63)));
        assert!(whitepaper.len() <= 4);
        assert_eq!(compared_layers(&Preset::Bench.config(), &[9; 32]).len(), 16);
    }
}
