//! Matrices of quantised checkpoints: finds the tensors that a packed matrix is made of, checks them, and unpacks it to
//! the precision that the engine computes in.
//!
//! | kind | tensors in place of `X.weight`, `[outputs, inputs]` |
//! |---|---|
//! | GPTQ, AWQ | `X.qweight` (i32), `X.qzeros` (i32), `X.scales`; GPTQ also `X.g_idx` (i32): the group of each input |
//! | FP8 | `X.weight` (e4m3) and `X.weight_scale_inv` or `X.weight_scale`, both factors of the weights |
//!
//! Whether a matrix is packed is seen from its tensors, so whatever a checkpoint left alone is read as it is. Beside the
//! result an unpacked matrix takes copies of its codes, its zeros and scales as f32, and [`PIECE`] floats.

use super::unpack::{words, Codes, Floats, Layout};
use super::weights::{Weights, WeightsError};
use crate::config::{Packing, Quantisation};
use crate::kernels::pool;
use safetensors::Dtype;
use tch::{Device, Kind, TchError, Tensor};

/// Weights that are unpacked to f32 before they are rounded to the precision that is asked for.
const PIECE: usize = 1 << 22;
/// Outputs that one thread unpacks at a time: a cache line of words.
const ROWS: usize = 16;

/// A matrix that is packed in a checkpoint.
pub struct PackedMatrix<'a> {
    parts: Parts<'a>,
    form: Form,
}

/// The tensors around a name.
struct Parts<'a> {
    weights: &'a Weights,
    /// What stands before `.weight`.
    stem: String,
    outputs: usize,
    inputs: usize,
}

enum Form {
    Codes {
        layout: Layout,
        group: usize,
        /// Whether there is a tensor with the group of each input.
        indexed: bool,
    },
    Floats {
        scales: String,
        shape: Vec<usize>,
        block: (usize, usize),
    },
}

impl Parts<'_> {
    fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.stem)
    }

    fn codes(&self, layout: Layout, group: Option<usize>, ordered: bool) -> Result<Form, WeightsError> {
        let (weights, per_word, codes) = (self.weights, layout.per_word(), self.name("qweight"));
        if weights.has(&self.name("weight")) {
            return Err(weights.wrong(&codes, format!("is there beside `{}`", self.name("weight"))));
        }
        let along_inputs = layout != Layout::Awq;
        for (packed, count) in [(along_inputs, self.inputs), (true, self.outputs)] {
            if packed && count % per_word != 0 {
                let reason = format!("is made of words of {per_word}, which do not divide {count}");
                return Err(weights.wrong(&codes, reason));
            }
        }
        let shape = match along_inputs {
            true => [self.inputs / per_word, self.outputs],
            false => [self.inputs, self.outputs / per_word],
        };
        let group = group.unwrap_or(self.inputs);
        let groups = self.inputs.div_ceil(group);
        weights.check_type(&codes, &shape, &[Dtype::I32])?;
        weights.check_type(&self.name("qzeros"), &[groups, self.outputs / per_word], &[Dtype::I32])?;
        weights.check(&self.name("scales"), &[groups, self.outputs])?;
        // Groups in order need no tensor that says so; where there is one, it is what counts.
        let index = self.name("g_idx");
        let indexed = along_inputs && (weights.has(&index) || ordered && groups > 1);
        if indexed {
            weights.check_type(&index, &[self.inputs], &[Dtype::I32])?;
        }
        Ok(Form::Codes { layout, group, indexed })
    }

    fn floats(&self, block: Option<(usize, usize)>) -> Result<Form, WeightsError> {
        let (weights, name) = (self.weights, self.name("weight"));
        weights.check_type(&name, &[self.outputs, self.inputs], &[Dtype::F8_E4M3])?;
        let names = ["weight_scale_inv", "weight_scale"].map(|part| self.name(part));
        let scales =
            names.iter().find(|name| weights.has(name)).unwrap_or(&names[usize::from(block.is_none())]).clone();
        let shape = weights.shape(&scales).unwrap_or_default().to_vec();
        let block = match (block, &shape[..]) {
            (Some((rows, columns)), _) => {
                weights.check(&scales, &[self.outputs.div_ceil(rows), self.inputs.div_ceil(columns)])?;
                (rows, columns)
            }
            (None, [] | [1] | [1, 1]) => (self.outputs, self.inputs),
            (None, [_, 1]) => (1, self.inputs),
            (None, _) => {
                weights.check(&scales, &[self.outputs])?;
                (1, self.inputs)
            }
        };
        let count = self.outputs.div_ceil(block.0) * self.inputs.div_ceil(block.1);
        if shape.iter().product::<usize>() != count {
            return Err(weights.wrong(&scales, format!("has shape {shape:?}, {count} scales are needed")));
        }
        weights.check(&scales, &shape)?;
        Ok(Form::Floats { scales, shape, block })
    }
}

impl<'a> PackedMatrix<'a> {
    /// The packed matrix in place of the tensor `name`, which is to have `shape`; `None` if that is no matrix of a
    /// product or is stored as it is.
    ///
    /// # Errors
    /// If a tensor that belongs to it is missing, or has another type or shape than `quantisation` asks for.
    pub fn find(
        weights: &'a Weights,
        quantisation: Option<&Quantisation>,
        name: &str,
        shape: &[usize],
    ) -> Result<Option<Self>, WeightsError> {
        let (Some(stem), [outputs, inputs]) = (name.strip_suffix(".weight"), shape) else { return Ok(None) };
        let parts = Parts { weights, stem: stem.to_owned(), outputs: *outputs, inputs: *inputs };
        let (codes, floats) = (parts.name("qweight"), weights.dtype(name) == Some(Dtype::F8_E4M3));
        let form = match quantisation.map(|quantisation| quantisation.packing) {
            Some(Packing::Gptq { bits, group, ordered, zeros_less_one }) if weights.has(&codes) => {
                parts.codes(Layout::Gptq { bits, zeros_less_one }, group, ordered)?
            }
            Some(Packing::Awq { group }) if weights.has(&codes) => parts.codes(Layout::Awq, group, false)?,
            Some(Packing::Fp8 { block }) if floats => parts.floats(block)?,
            _ if weights.has(&codes) || floats => {
                let packed = if floats { name } else { &codes };
                let reason = match quantisation {
                    None => "is packed, but config.json has no field `quantization_config`".into(),
                    Some(other) => format!("is not packed as config.json says: {other}"),
                };
                return Err(weights.wrong(packed, reason));
            }
            _ => return Ok(None),
        };
        Ok(Some(Self { parts, form }))
    }

    /// Names of the tensors that it is made of.
    pub fn tensors(&self) -> Vec<String> {
        match &self.form {
            Form::Codes { .. } => {
                let names = ["qweight", "qzeros", "scales", "g_idx"].map(|part| self.parts.name(part));
                names.into_iter().filter(|name| self.parts.weights.has(name)).collect()
            }
            Form::Floats { scales, .. } => vec![self.parts.name("weight"), scales.clone()],
        }
    }

    /// Unpacks it, as `[outputs, inputs]` of `kind` on `device`.
    ///
    /// # Errors
    /// If its tensors contradict each other, or libtorch refuses.
    pub fn read(&self, kind: Kind, device: Device) -> Result<Tensor, WeightsError> {
        let name = self.parts.name("weight");
        let torch = |source| WeightsError::Torch { name: name.clone(), source };
        let float = |name: &str, shape: &[usize]| -> Result<Vec<f32>, WeightsError> {
            let tensor = self.parts.weights.get(name, shape, Kind::Float, Device::Cpu)?;
            tensor.f_flatten(0, -1).and_then(Vec::try_from).map_err(torch)
        };
        match &self.form {
            Form::Codes { layout, group, indexed } => {
                let (codes, zeros) = (self.parts.name("qweight"), self.parts.name("qzeros"));
                let count = self.parts.inputs.div_ceil(*group);
                let matrix = Codes {
                    layout: *layout,
                    words: words(self.parts.weights.bytes(&codes)?).collect(),
                    zeros: layout.zeros(self.parts.weights.bytes(&zeros)?),
                    scales: float(&self.parts.name("scales"), &[count, self.parts.outputs])?,
                    groups: self.groups(*group, *indexed)?,
                    outputs: self.parts.outputs,
                };
                self.parts.weights.forget(&codes);
                self.pieces(&|first, out| matrix.rows(first, out), kind, device).map_err(torch)
            }
            Form::Floats { scales, shape, block } => {
                let scales = float(scales, shape)?;
                let matrix = Floats {
                    bytes: self.parts.weights.bytes(&name)?,
                    scales,
                    block: *block,
                    inputs: self.parts.inputs,
                };
                let tensor = self.pieces(&|first, out| matrix.rows(first, out), kind, device).map_err(torch);
                self.parts.weights.forget(&name);
                tensor
            }
        }
    }

    /// The group of each input.
    fn groups(&self, group: usize, indexed: bool) -> Result<Vec<u32>, WeightsError> {
        if !indexed {
            return Ok((0..self.parts.inputs).map(|input| (input / group) as u32).collect());
        }
        let (name, count) = (self.parts.name("g_idx"), self.parts.inputs.div_ceil(group) as u32);
        let groups: Vec<u32> = words(self.parts.weights.bytes(&name)?).collect();
        match groups.iter().find(|group| **group >= count) {
            Some(wrong) => Err(self.parts.weights.wrong(&name, format!("names group {} of {count}", *wrong as i32))),
            None => Ok(groups),
        }
    }

    /// Fills a tensor piece by piece; `rows` unpacks from a first output on.
    fn pieces(
        &self,
        rows: &(dyn Fn(usize, &mut [f32]) + Sync),
        kind: Kind,
        device: Device,
    ) -> Result<Tensor, TchError> {
        let (outputs, inputs) = (self.parts.outputs, self.parts.inputs);
        let whole = Tensor::f_empty([outputs as i64, inputs as i64], (kind, device))?;
        let most = (PIECE / inputs).max(1).min(outputs);
        let mut piece = vec![0.0; most * inputs];
        for first in (0..outputs).step_by(most) {
            let count = most.min(outputs - first);
            let piece = &mut piece[..count * inputs];
            pool::run_chunks(piece, ROWS * inputs, &|index, out| rows(first + index * ROWS, out));
            let piece = Tensor::f_from_slice(piece)?.f_view([count as i64, inputs as i64])?;
            whole.f_narrow(0, first as i64, count as i64)?.f_copy_(&piece)?;
        }
        Ok(whole)
    }
}

#[cfg(test)]
#[path = "quantised_tests.rs"]
mod tests;
