//! The weights of one race as one device wants them.

use std::sync::Arc;

use pacer_sprint::{Config, Hash, Sprint};
use tch::{Device, Kind, Tensor};

use super::{
    error::SprintError,
    host_kernels,
    path::{weight_kind, Path},
    torch_kernels,
    weights::{Cost, Form, Group, WeightStore, GROUPS},
};

/// What computes everything between products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Fused loops of this program: CPU only.
    Host,
    /// libtorch's operations: any device.
    Torch,
}

impl Kernels {
    /// The better ones for a device.
    pub fn of(device: Device) -> Kernels {
        if device == Device::Cpu {
            Kernels::Host
        } else {
            Kernels::Torch
        }
    }
}

/// `x = i8(x + fold(acc, shift))`: the host kernel that ends both halves of a layer.
pub(super) type AddFold = fn(host_kernels::Block<'_>, &mut [i8]);

/// A network, ready for passes.
pub struct Network {
    store: Arc<WeightStore>,
    device: Device,
    kernels: Kernels,
    path: Path,
    /// A K x N view a group, for [`Kernels::Torch`]; host kernels read the store.
    tensors: Vec<Tensor>,
    pub(super) table: Tensor,
    target: Vec<i8>,
    /// A field, so that a test can put a wrong one there.
    pub(super) add_fold: AddFold,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut fields = f.debug_struct("Network");
        fields
            .field("config", self.config())
            .field("device", &self.device)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Network {
    /// Brings weights to a device. `between` is called between groups of matrices.
    ///
    /// # Errors
    /// Kernels that do not run on the device, or libtorch, for example when its memory is short.
    pub fn new(
        store: Arc<WeightStore>,
        device: Device,
        kernels: Kernels,
        path: Path,
        between: &dyn Fn(),
    ) -> Result<Self, SprintError> {
        if kernels == Kernels::Host && device != Device::Cpu {
            return Err(SprintError::BadInput("host kernels need the CPU".into()));
        }
        let mut tensors = Vec::new();
        if kernels == Kernels::Torch {
            for group in store.groups() {
                tensors.push(upload(group, store.form(), device, path)?);
                between();
            }
        }
        let (table, target) = (torch_kernels::weight_table(device)?, store.sprint().target());
        Ok(Network { store, device, kernels, path, tensors, table, target, add_fold: host_kernels::add_fold })
    }

    /// The race's reference.
    pub fn sprint(&self) -> &Sprint {
        self.store.sprint()
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        self.sprint().config()
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What computes between products.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// How it multiplies.
    pub fn path(&self) -> Path {
        self.path
    }

    /// See [`WeightStore::hash`].
    pub fn weights_hash(&self) -> &Hash {
        self.store.hash()
    }

    /// How the weights lie in main memory.
    pub(super) fn form(&self) -> Form {
        self.store.form()
    }

    /// What deriving the weights took.
    pub fn weights_cost(&self) -> Cost {
        self.store.cost()
    }

    /// The target vector.
    pub fn target(&self) -> &[i8] {
        &self.target
    }

    /// Where a group of a layer is in every list of groups; `group` 0 of the layer after the last is the output matrix.
    fn index(&self, layer: usize, group: usize) -> usize {
        layer * GROUPS + group
    }

    /// A group as the host kernels read it, and whether it is packed.
    pub(super) fn host_group(&self, layer: usize, group: usize) -> Result<(&Group, Form), SprintError> {
        let group =
            self.store.groups().get(self.index(layer, group)).ok_or(pacer_sprint::Error::Layer(layer as u32))?;
        Ok((group, self.store.form()))
    }

    /// A group on the device: K x N.
    pub(super) fn tensor(&self, layer: usize, group: usize) -> Result<&Tensor, SprintError> {
        Ok(self.tensors.get(self.index(layer, group)).ok_or(pacer_sprint::Error::Layer(layer as u32))?)
    }

    /// N and K of a group.
    pub(super) fn group_shape(&self, layer: usize, group: usize) -> Result<(usize, usize), SprintError> {
        self.host_group(layer, group).map(|(group, _)| (group.rows, group.columns))
    }
}

/// Copies a group to a device, nibbles if they are packed, and makes it what products want there.
fn upload(group: &Group, form: Form, device: Device, path: Path) -> Result<Tensor, SprintError> {
    let shape = [group.rows as i64, group.columns as i64];
    let rows = match form {
        Form::Expanded => Tensor::f_from_data_size(&group.bytes, &shape, Kind::Int8)?.f_to(device)?,
        Form::Packed => {
            let bytes =
                Tensor::f_from_data_size(&group.bytes, &[group.bytes.len() as i64], Kind::Uint8)?.f_to(device)?;
            let weight = |nibble: Tensor| nibble.f_to_dtype(Kind::Int8, false, false)?.f_sub_scalar(8);
            let (low, high) =
                (weight(bytes.f_bitwise_and(15)?)?, weight(bytes.f_bitwise_right_shift_tensor_scalar(4)?)?);
            Tensor::f_stack(&[low, high], 1)?.f_view(shape)?
        }
    };
    Ok(rows.f_to_dtype(weight_kind(path), false, false)?.f_tr()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pacer_sprint::Preset;

    #[test]
    fn uploaded_weights_should_be_the_same_when_they_come_packed() {
        let store =
            |form| Arc::new(WeightStore::derive(Preset::Dev.config(), [3; 32], form, 1, &|| {}).expect("derived"));
        let (packed, expanded) = (store(Form::Packed), store(Form::Expanded));
        for path in Path::ALL {
            let new = |store: &Arc<WeightStore>| {
                Network::new(store.clone(), Device::Cpu, Kernels::Torch, path, &|| {}).expect("built")
            };
            let (packed, expanded) = (new(&packed), new(&expanded));
            assert_eq!(packed.tensors, expanded.tensors);
            let row = packed.tensors[GROUPS + 3].select(1, 7).to_kind(Kind::Int8);
            let expected = packed.sprint().weight_row(7 + 4, 7).expect("exists");
            assert_eq!(Vec::<i8>::try_from(row).expect("a vector"), expected);
        }
    }
}
