//! Comparing a device with the reference before it may race.
//!
//! Twice: with a small network when the device is opened ([`compare_dev`]), and then again in every shape in which it
//! races ([`Trial`]): same network, path, batch and cut. A wrong result may come from a block that only large batches have.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use pacer_sprint::{evaluate, Config, Hash, Preset};

use super::{
    edges::Edges,
    error::SprintError,
    forward::Activations,
    network::Network,
    pass::evaluate_all,
    weights::{Form, WeightStore},
};

/// Small nonces are enough: inputs are hashes of them.
const DEV_NONCES: u64 = 40;
/// Host whose nonces are tried.
const HOST: Hash = [0x1f; 32];

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

/// How much of a pass is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Care {
    /// A fifth of a second of the reference: for a shape that is used once, on the way to a better one.
    Brief,
    /// A second: for a network's first shape, and for the one that it settles on.
    Thorough,
}

impl Care {
    /// Multiply-adds that the reference may spend. It does one or two in a nanosecond.
    fn macs(self) -> u64 {
        match self {
            Care::Brief => 300_000_000,
            Care::Thorough => 1_500_000_000,
        }
    }
}

/// Fewest and most nonces of a pass that are compared.
const LEAST_NONCES: u64 = 2;
const MOST_NONCES: u64 = 8;

/// Part of a real pass that is compared with the reference before the pass counts: inputs, some layers, outputs and
/// verdicts of its first nonce, its last and some others.
#[derive(Debug)]
pub(super) struct Trial {
    /// Where in the batch the nonces are, ascending.
    nonces: Vec<usize>,
    /// Ascending; the last layer is always among them.
    layers: Vec<u32>,
    /// What the nonces' states were before and after these layers.
    states: BTreeMap<u32, Vec<i8>>,
    care: Care,
}

impl Trial {
    /// For a pass of `batch` nonces. What is looked at besides first and last follows from `salt`.
    pub fn new(network: &Network, batch: usize, care: Care, salt: u64) -> Self {
        let config = network.config();
        let (nonces, layers) = plan(config, care);
        let drawn = |what: &[u8]| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(network.sprint().seed()).update(&salt.to_le_bytes()).update(what);
            hasher.finalize_xof()
        };
        Trial {
            nonces: ends_and_some(batch, nonces as usize, drawn(b"nonces")),
            layers: ends_and_some(config.layers as usize, layers as usize, drawn(b"layers"))
                .into_iter()
                .map(|layer| layer as u32)
                .collect(),
            states: BTreeMap::new(),
            care,
        }
    }

    /// How much is compared.
    pub fn care(&self) -> Care {
        self.care
    }

    /// How many nonces are.
    pub fn nonces(&self) -> usize {
        self.nonces.len()
    }

    /// Looks at the states of a pass before a layer.
    pub fn note(&mut self, network: &Network, layer: usize, batch: usize, x: &Activations) -> Result<(), SprintError> {
        let layer = layer as u32;
        let (before, after) =
            (self.layers.contains(&layer), self.layers.iter().any(|looked_at| looked_at + 1 == layer));
        if layer == 0 || before || after {
            self.states.insert(layer, x.states(network.config().width as usize, batch, &self.nonces)?);
        }
        Ok(())
    }

    /// Compares what was noted of a pass that is done. `between` is called between layers.
    ///
    /// # Errors
    /// [`SprintError::Inexact`] if any of it differs.
    pub fn compare(
        &self,
        network: &Network,
        (host, edges): (&Hash, &Edges),
        (nonces, y): (&[u64], &[i8]),
        between: &dyn Fn(),
    ) -> Result<(), SprintError> {
        let (sprint, outputs) = (network.sprint(), network.config().outputs as usize);
        let looked_at: Vec<u64> = self.nonces.iter().filter_map(|index| nonces.get(*index)).copied().collect();
        let state = |layer: u32| {
            self.states.get(&layer).ok_or_else(|| SprintError::Inexact(format!("layer {layer} was left out")))
        };
        let inputs: Vec<i8> = looked_at.iter().flat_map(|nonce| sprint.input(host, *nonce)).collect();
        differs(state(0)?, &inputs, || "an input of the self-test differs".into())?;
        for layer in &self.layers {
            between();
            let expected = sprint.layer_of_many(*layer, state(*layer)?)?;
            differs(state(layer + 1)?, &expected, || format!("layer {layer} of the self-test differs"))?;
        }
        between();
        let last = state(network.config().layers)?.chunks(network.config().width as usize);
        for ((index, nonce), state) in self.nonces.iter().zip(&looked_at).zip(last) {
            let found = &y[index * outputs..(index + 1) * outputs];
            differs(&found, &sprint.output(state)?.as_slice(), || "an output of the self-test differs".into())?;
            let (score, outcome) = (sprint.score(host, *nonce, found)?, edges.outcomes(&[*nonce], found));
            let sums: Vec<_> = outcome.iter().map(|outcome| (outcome.dot, outcome.zz)).collect();
            differs(&sums, &vec![(score.dot, score.zz)], || "a verdict of the self-test differs".into())?;
        }
        Ok(())
    }
}

/// How many nonces, and how many layers, are compared.
fn plan(config: &Config, care: Care) -> (u64, u64) {
    let (whole, all) = (config.needed_macs().max(1), u64::from(config.layers));
    let nonces = (care.macs() / whole).clamp(LEAST_NONCES, MOST_NONCES);
    (nonces, (care.macs() * all / (nonces * whole)).clamp(2, all.max(2)))
}

/// The first and the last of `all`, and others up to `count`; ascending, without repetition.
fn ends_and_some(all: usize, count: usize, mut drawn: blake3::OutputReader) -> Vec<usize> {
    let mut some = std::collections::BTreeSet::from([0, all.saturating_sub(1)]);
    while some.len() < count.min(all) {
        let mut word = [0; 8];
        drawn.fill(&mut word);
        some.insert((u64::from_le_bytes(word) % all.max(1) as u64) as usize);
    }
    some.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sprint::{
        host_kernels::{add_fold, Block},
        network::{AddFold, Kernels},
        pass::Pass,
        path::Path,
        tuner::Pace,
        workspace::Workspace,
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

    /// Right in small batches: forgets the last row of a block that has many.
    fn short_add_fold(block: Block<'_>, x: &mut [i8]) {
        let rows = block.acc.len() / block.columns;
        let done = if rows >= LARGE { rows - 1 } else { rows };
        add_fold(Block { acc: &block.acc[..done * block.columns], ..block }, x);
    }

    const LARGE: usize = 200;

    fn wrong(kernel: AddFold) -> impl Fn(Arc<WeightStore>) -> Result<Network, SprintError> {
        move |store| {
            let mut network = network_on(Device::Cpu, Path::Int8)(store)?;
            network.add_fold = kernel;
            Ok(network)
        }
    }

    fn store(config: Config) -> Arc<WeightStore> {
        Arc::new(WeightStore::derive(config, [0xa7; 32], Form::Expanded, 1, &|| {}).expect("derived"))
    }

    /// A whole pass of so many nonces, cut finely, with a trial.
    fn try_out(network: Network, batch: usize, care: Care) -> Result<usize, SprintError> {
        let (network, host) = (Rc::new(network), [0x33; 32]);
        let nonces: Vec<u64> = (1000..1000 + batch as u64).collect();
        let edges = Edges::new(network.sprint(), &host, 0);
        let pace = Pace { part_macs: 1, ..Pace::default() };
        let rows = edges.inputs(&nonces, batch);
        let mut pass = Pass::begin(network.clone(), nonces.clone(), rows, pace, Workspace::default())?;
        pass.watch(Some(Trial::new(&network, batch, care, 7)));
        while !pass.step()? {}
        let trial = pass.take_trial().expect("it was given");
        let y: Vec<i8> = pass.outputs().flatten().copied().collect();
        trial.compare(&network, (&host, &edges), (&nonces, &y), &|| {})?;
        Ok(trial.nonces())
    }

    #[test]
    fn device_should_pass_when_it_is_exact_whatever_computes() {
        tch::set_num_threads(1);
        for (kernels, path) in [Kernels::Host, Kernels::Torch].into_iter().flat_map(|k| Path::ALL.map(|path| (k, path)))
        {
            compare_dev(network_on(Device::Cpu, path)).expect("exact");
            for (batch, compared) in [(1, 1), (2, 2), (150, 8)] {
                let network =
                    Network::new(store(Preset::Dev.config()), Device::Cpu, kernels, path, &|| {}).expect("built");
                assert_eq!(try_out(network, batch, Care::Brief).expect("exact"), compared);
            }
        }
    }

    #[test]
    fn device_should_be_refused_when_a_kernel_is_wrong() {
        tch::set_num_threads(1);
        for kernel in [rounding_add_fold, clamping_add_fold] {
            let refused = compare_dev(wrong(kernel)).expect_err("inexact");
            assert!(refused.to_string().contains("does not compute the Sprint exactly"), "{refused}");
            let network = wrong(kernel)(store(Preset::Dev.config())).expect("built");
            assert!(matches!(try_out(network, 5, Care::Brief), Err(SprintError::Inexact(_))));
        }
    }

    #[test]
    fn device_should_be_refused_when_it_is_wrong_in_large_batches_only() {
        tch::set_num_threads(1);
        let network = || wrong(short_add_fold)(store(Preset::Dev.config())).expect("built");
        // So the comparison of small nonces at start cannot see it: forty have 160 rows.
        compare_dev(wrong(short_add_fold)).expect("exact as long as blocks are small");
        try_out(network(), LARGE / 4 - 1, Care::Thorough).expect("as small: four rows a nonce");
        assert!(matches!(try_out(network(), LARGE, Care::Brief), Err(SprintError::Inexact(_))));
    }

    #[test]
    fn trial_should_be_bounded_and_see_both_ends_when_a_network_is_large() {
        let of = |preset: Preset, care| plan(&preset.config(), care);
        for (preset, care) in [Preset::Bench, Preset::Wide, Preset::Whitepaper]
            .into_iter()
            .flat_map(|preset| [(preset, Care::Brief), (preset, Care::Thorough)])
        {
            let (nonces, layers) = of(preset, care);
            let macs = nonces * layers * preset.config().needed_macs() / u64::from(preset.config().layers);
            assert!(macs <= care.macs() || (nonces, layers) == (LEAST_NONCES, 2), "{preset:?} {care:?}");
        }
        assert_eq!(of(Preset::Bench, Care::Thorough), (4, 16));
        assert_eq!(of(Preset::Dev, Care::Brief), (8, 4));
        let some = ends_and_some(64, 5, blake3::Hasher::new().finalize_xof());
        assert!(some.len() == 5 && some[0] == 0 && some[4] == 63 && some.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(ends_and_some(1, 5, blake3::Hasher::new().finalize_xof()), [0]);
    }
}
