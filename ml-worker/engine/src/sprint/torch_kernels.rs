//! Everything between two products as libtorch operations, for any device.

use pacer_sprint::power_of_half;
use tch::{Device, Kind, Tensor};

use super::{error::SprintError, host_kernels::Attention};

type Result<T> = std::result::Result<T, SprintError>;

/// `fold(acc, shift)`; `acc` is used up.
pub fn fold(mut acc: Tensor, shift: u32) -> Result<Tensor> {
    let _ = acc.f_bitwise_right_shift_tensor_scalar_(i64::from(shift))?;
    wrap(&acc)
}

/// The low 8 bits of each element: libtorch converts integers to narrower ones by truncation.
fn wrap(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_to_dtype(Kind::Int8, false, false)?)
}

/// `fold(g * u, 4)` for rows of gate and up side by side, already folded.
pub fn gate(gate_up: &Tensor, ffn: i64) -> Result<Tensor> {
    let gate = gate_up.f_narrow(1, 0, ffn)?.f_to_dtype(Kind::Int16, false, false)?;
    let product = gate.f_mul(&gate_up.f_narrow(1, ffn, ffn)?)?;
    wrap(&product.f_bitwise_right_shift_tensor_scalar(4)?)
}

/// The table of attention weights on a device, as f32.
pub fn weight_table(device: Device) -> Result<Tensor> {
    let table: Vec<f32> = (0..=255).map(|n| power_of_half(n) as f32).collect();
    Ok(Tensor::f_from_slice(&table)?.f_to(device)?)
}

/// As [`Attention::mix`], in f32: scores stay within 2^24 and mixed values within 2^21, so every sum is exact.
pub fn mix(shape: &Attention, table: &Tensor, q: Option<&Tensor>, kv: &Tensor) -> Result<Tensor> {
    let [batch, heads, head, positions] =
        [shape.batch, shape.heads, shape.head_width, shape.positions].map(|n| n as i64);
    let width = heads * head;
    let kv = kv.f_view([positions, batch, 2 * width])?;
    let mut parts = Vec::with_capacity(2);
    if shape.first == 0 {
        let value = kv.f_narrow(0, 0, 1)?.f_narrow(2, width, width)?;
        parts.push(wrap(&value.f_to_dtype(Kind::Int, false, false)?.f_bitwise_left_shift_tensor_scalar(2)?)?);
    }
    if let Some(q) = q {
        let queries = positions - shape.first_query() as i64;
        // [nonce, head, position, element]
        let split = |x: &Tensor, positions: i64| -> Result<Tensor> {
            Ok(x.f_reshape([positions, batch, heads, head])?.f_permute([1, 2, 0, 3])?.f_to_dtype(
                Kind::Float,
                false,
                false,
            )?)
        };
        let q = split(q, queries)?;
        let k = split(&kv.f_narrow(2, 0, width)?, positions)?;
        let v = split(&kv.f_narrow(2, width, width)?, positions)?;
        let scale = f64::from(1u32 << ((head as u32).ilog2() / 2 + 8)).recip();
        let mut scores = q.f_matmul(&k.f_transpose(2, 3)?)?;
        let _ = scores.f_mul_scalar_(scale)?.f_floor_()?;
        let seen: Vec<bool> = (shape.first_query()..shape.positions)
            .flat_map(|query| (0..shape.positions).map(move |key| key > query))
            .collect();
        let hidden = Tensor::f_from_slice(&seen)?.f_view([queries, positions])?.f_to(q.device())?;
        // Far below every score: the table's last entries are zero.
        let _ = scores.f_masked_fill_(&hidden, f64::from(-(1 << 25)))?;
        let distance = scores.f_amax([-1i64].as_slice(), true)?.f_sub(&scores)?.f_clamp_max(255)?;
        let weights = table.f_take(&distance.f_to_dtype(Kind::Int64, false, false)?)?;
        let sums = weights.f_matmul(&v)?.f_to_dtype(Kind::Int, false, false)?;
        let mixed = wrap(&sums.f_bitwise_right_shift_tensor_scalar(6)?)?;
        parts.push(mixed.f_permute([2, 0, 1, 3])?.f_reshape([queries, batch, width])?);
    }
    Ok(Tensor::f_cat(&parts, 0)?.f_reshape([-1, width])?)
}
