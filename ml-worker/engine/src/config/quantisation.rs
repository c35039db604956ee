//! `quantization_config` in `config.json`: how the matrices of a checkpoint are packed.
//!
//! It says how, not which: whether a matrix is packed is seen from its tensors (`model/quantised.rs`), so lists of
//! modules that were left alone are not read. Rounding of activations, which some of these formats ask for, is not done:
//! the engine computes with the unpacked weights.

use super::fields::Fields;
use super::ConfigError;
use std::fmt;

/// How matrices are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantisation {
    /// As `quant_method` calls it.
    pub method: &'static str,
    /// What is in the tensors.
    pub packing: Packing,
}

/// What is in the tensors of a packed matrix. Groups are of inputs that share a scale and a zero; `None` is one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Whole numbers, packed along the inputs.
    Gptq {
        /// Bits of each, 4 or 8.
        bits: usize,
        /// Inputs in a group.
        group: Option<usize>,
        /// Whether inputs belong to groups in an order of their own, which a tensor states.
        ordered: bool,
        /// Whether zeros are stored less one (the first version of the format).
        zeros_less_one: bool,
    },
    /// Whole numbers of 4 bits, packed along the outputs in the order of AWQ's `gemm` version.
    Awq {
        /// Inputs in a group.
        group: Option<usize>,
    },
    /// Floats of 8 bits (e4m3, no infinities).
    Fp8 {
        /// Outputs and inputs that share a scale; `None` is a scale for a matrix or for each of its outputs.
        block: Option<(usize, usize)>,
    },
}

impl fmt::Display for Quantisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", self.method)?;
        let group = |group: Option<usize>| match group {
            Some(inputs) => format!("groups of {inputs}"),
            None => "one group".into(),
        };
        match self.packing {
            Packing::Gptq { bits, group: inputs, ordered, .. } => {
                write!(f, "{bits} bits, {}{}", group(inputs), if ordered { " by importance" } else { "" })
            }
            Packing::Awq { group: inputs } => write!(f, "4 bits, {}", group(inputs)),
            Packing::Fp8 { block: Some((rows, columns)) } => write!(f, "8 bits (e4m3), blocks of {rows} x {columns}"),
            Packing::Fp8 { block: None } => write!(f, "8 bits (e4m3), a scale for each matrix or output"),
        }
    }
}

/// Reads it, if there is one.
///
/// # Errors
/// If it is of a kind that the engine cannot unpack.
pub(super) fn read(fields: &Fields) -> Result<Option<Quantisation>, ConfigError> {
    let Some(fields) = fields.inner("quantization_config")? else { return Ok(None) };
    let method = fields.text("quant_method")?.ok_or_else(|| fields.wrong("quant_method", "is missing"))?;
    let (method, packing) = match method {
        "gptq" => ("gptq", gptq(&fields)?),
        "awq" => ("awq", awq(&fields)?),
        "fp8" => ("fp8", fp8(&fields)?),
        "compressed-tensors" => ("compressed-tensors", compressed(&fields)?),
        other => {
            let reason = format!("{other} is not supported, only gptq, awq, fp8 and compressed-tensors");
            return Err(fields.wrong("quant_method", reason));
        }
    };
    Ok(Some(Quantisation { method, packing }))
}

/// `group_size`; -1 is one group.
fn group(fields: &Fields) -> Result<Option<usize>, ConfigError> {
    if fields.number("group_size")? == Some(-1.0) {
        return Ok(None);
    }
    fields.size("group_size").map(Some)
}

/// A text that must be one of these, whatever its case; absent is the first.
fn one_of(fields: &Fields, field: &str, known: &[&'static str]) -> Result<&'static str, ConfigError> {
    let Some(text) = fields.text(field)? else { return Ok(known[0]) };
    let found = known.iter().find(|known| known.eq_ignore_ascii_case(text));
    found.copied().ok_or_else(|| fields.wrong(field, format!("{text} is not supported, only {}", known.join(", "))))
}

fn bits(fields: &Fields, field: &str, known: &[usize]) -> Result<usize, ConfigError> {
    let bits = fields.size(field)?;
    if !known.contains(&bits) {
        return Err(fields.wrong(field, format!("{bits} is not supported, only {known:?}")));
    }
    Ok(bits)
}

fn gptq(fields: &Fields) -> Result<Packing, ConfigError> {
    // Its newer name; `format` is what some versions of a packer wrote instead.
    let spelling = if fields.value("checkpoint_format").is_some() { "checkpoint_format" } else { "format" };
    let format = one_of(fields, spelling, &["gptq", "gptq_v2"])?;
    one_of(fields, "pack_dtype", &["int32"])?;
    if fields.flag("is_marlin_format")? {
        return Err(fields.wrong("is_marlin_format", "true is not supported"));
    }
    if let Some(dynamic) = fields.inner("dynamic")? {
        // Rules that leave modules alone are seen from the tensors; others would give them other bits or groups.
        if let Some(rule) = dynamic.names().find(|rule| !rule.starts_with("-:")) {
            return Err(dynamic.wrong(rule, "settings by module are not supported"));
        }
    }
    Ok(Packing::Gptq {
        bits: bits(fields, "bits", &[4, 8])?,
        group: group(fields)?,
        ordered: fields.flag("desc_act")?,
        zeros_less_one: format == "gptq",
    })
}

fn awq(fields: &Fields) -> Result<Packing, ConfigError> {
    one_of(fields, "version", &["gemm"])?;
    bits(fields, "bits", &[4])?;
    if fields.truth("zero_point")? == Some(false) {
        return Err(fields.wrong("zero_point", "false is not supported"));
    }
    Ok(Packing::Awq { group: group(fields)? })
}

/// A list of two sizes.
fn block(fields: &Fields, field: &str) -> Result<Option<(usize, usize)>, ConfigError> {
    match fields.counts(field)?[..] {
        [] => Ok(None),
        [rows, columns] => Ok(Some((fields.in_range(field, rows)?, fields.in_range(field, columns)?))),
        _ => Err(fields.wrong(field, "is not a list of two")),
    }
}

fn fp8(fields: &Fields) -> Result<Packing, ConfigError> {
    one_of(fields, "fmt", &["e4m3", "float8_e4m3fn"])?;
    Ok(Packing::Fp8 { block: block(fields, "weight_block_size")? })
}

fn compressed(fields: &Fields) -> Result<Packing, ConfigError> {
    let floats = |fields: &Fields| match fields.value("format") {
        None => Err(fields.wrong("format", "is missing")),
        Some(_) => one_of(fields, "format", &["float-quantized"]),
    };
    floats(fields)?;
    if let Some(sparsity) = fields.inner("sparsity_config")? {
        one_of(&sparsity, "format", &["dense"])?;
    }
    if fields.inner("transform_config")?.is_some_and(|transforms| transforms.names().next().is_some()) {
        return Err(fields.wrong("transform_config", "transformed weights are not supported"));
    }
    let groups = fields.inner("config_groups")?.ok_or_else(|| fields.wrong("config_groups", "is missing"))?;
    let mut found = None;
    for name in groups.names() {
        let group = groups.inner(name)?.ok_or_else(|| groups.wrong(name, "is missing"))?;
        if group.value("format").is_some() {
            floats(&group)?;
        }
        let weights = group.inner("weights")?.ok_or_else(|| group.wrong("weights", "is missing"))?;
        one_of(&weights, "type", &["float"])?;
        bits(&weights, "num_bits", &[8])?;
        let block = match one_of(&weights, "strategy", &["tensor", "channel", "block"])? {
            "block" => match block(&weights, "block_structure")? {
                None => return Err(weights.wrong("block_structure", "is missing")),
                some => some,
            },
            _ => None,
        };
        if found.replace(block).is_some_and(|other| other != block) {
            return Err(weights.wrong("block_structure", "differs between groups, which is not supported"));
        }
    }
    let block = found.ok_or_else(|| fields.wrong("config_groups", "is empty"))?;
    Ok(Packing::Fp8 { block })
}
