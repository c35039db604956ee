//! Matrix products, one row per token of the flat batch.
//!
//! On a CPU with the vector units for it the weights are packed for the engine's own kernels ([`crate::kernels`]), else
//! they stay as they are and libtorch multiplies. Either way they are kept once: an embedding that is also the head is one
//! piece of memory.

use crate::kernels::element::{slice, slice_mut, Bf16, Element};
use crate::kernels::packed::{Order, Packed};
use crate::kernels::product::{Activations, Product};
use crate::kernels::{deterministic, pool, Isa};
use std::str::FromStr;
use std::sync::Arc;
use tch::{Device, Kind, TchError, Tensor};

/// Rows of an output matrix that libtorch gets in f32 at once.
const HEAD_ROWS: i64 = 8192;

/// How weights are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quantize {
    /// As they are.
    #[default]
    None,
    /// In int8 with a scale per output; activations stay floats.
    Int8,
    /// The same, and activations are rounded to int8 with a scale per token before each product.
    W8A8,
}

impl FromStr for Quantize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "int8" => Ok(Self::Int8),
            "w8a8" => Ok(Self::W8A8),
            _ => Err(format!("{text} is not none, int8 or w8a8")),
        }
    }
}

/// A matrix as it is kept.
enum Matrix {
    Packed(Arc<Packed>, Activations),
    Plain(Tensor),
}

impl Matrix {
    fn new(weight: Tensor, order: Order, quantize: Quantize, isa: Isa) -> Result<Self, TchError> {
        let (out, depth) = weight.size2()?;
        let fits = weight.device() == Device::Cpu && (order == Order::Plain || out % 32 == 0);
        let packed = match quantize {
            Quantize::None if fits && isa != Isa::Portable && Packed::takes(weight.f_kind()?, depth as usize) => {
                Packed::new(&weight.f_contiguous()?, order)?
            }
            Quantize::None => return Ok(Self::Plain(weight)),
            Quantize::Int8 | Quantize::W8A8 if fits => Packed::int8(&weight.f_contiguous()?, order)?,
            _ => return Err(TchError::Torch("int8 weights are for CPUs, and for widths that 16 divides".into())),
        };
        let activations = if quantize == Quantize::W8A8 { Activations::Int8 } else { Activations::Float };
        Ok(Self::Packed(Arc::new(packed), activations))
    }

    /// The same memory once more.
    fn share(&self) -> Self {
        match self {
            Self::Packed(packed, activations) => Self::Packed(packed.clone(), *activations),
            Self::Plain(weight) => Self::Plain(weight.shallow_clone()),
        }
    }
}

/// `x W^T + b` by libtorch. `linear` rather than `matmul`: with one row the latter has a very slow bf16 path.
pub(super) fn libtorch(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, TchError> {
    let rows = x.size2()?.0;
    if !deterministic() || rows < 2 {
        return x.f_linear(weight, bias);
    }
    // Which kernel libtorch takes, and with it the order of additions, depends on the number of rows.
    let row = |row| x.f_narrow(0, row, 1)?.f_linear(weight, bias);
    Tensor::f_cat(&(0..rows).map(row).collect::<Result<Vec<_>, _>>()?, 0)
}

/// A matrix product `x W^T + b`.
pub struct Linear {
    matrix: Matrix,
    bias: Option<Tensor>,
    /// The same in the order of packed columns.
    arranged: Option<Vec<f32>>,
    gated: bool,
}

impl Linear {
    /// `weight` is `[out, in]`, `bias` `[out]`.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self, TchError> {
        Self::build(weight, bias, Order::Plain, Quantize::None, Isa::best())
    }

    /// The same, kept as `quantize` says.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn quantized(weight: Tensor, bias: Option<Tensor>, quantize: Quantize) -> Result<Self, TchError> {
        Self::build(weight, bias, Order::Plain, quantize, Isa::best())
    }

    /// A gate and what it gates: `weight` is `[2 out, in]`, the gate's rows first, and the result `silu(x G^T) * (x
    /// U^T)`, `[n, out]`.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn gated(weight: Tensor, bias: Option<Tensor>, quantize: Quantize) -> Result<Self, TchError> {
        Self::build(weight, bias, Order::Gated, quantize, Isa::best())
    }

    fn build(
        weight: Tensor,
        bias: Option<Tensor>,
        order: Order,
        quantize: Quantize,
        isa: Isa,
    ) -> Result<Self, TchError> {
        let matrix = Matrix::new(weight, order, quantize, isa)?;
        let arranged = match (&matrix, &bias) {
            (Matrix::Packed(packed, _), Some(bias)) => {
                if bias.size() != [packed.out as i64] {
                    return Err(TchError::Torch(format!("a bias of {:?} for {} outputs", bias.size(), packed.out)));
                }
                Some(packed.arrange(slice(&bias.f_to_kind(Kind::Float)?.f_contiguous()?)?))
            }
            _ => None,
        };
        Ok(Self { matrix, bias, arranged, gated: order == Order::Gated })
    }

    /// `[n, in]` to `[n, out]` of the same type.
    ///
    /// # Errors
    /// If `x` has another width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        match &self.matrix {
            Matrix::Packed(packed, activations) => {
                Product::new(packed, self.arranged.as_deref(), *activations)?.forward(x, x.f_kind()?)
            }
            Matrix::Plain(weight) => {
                let out = libtorch(x, weight, self.bias.as_ref())?;
                if !self.gated {
                    return Ok(out);
                }
                let half = out.size2()?.1 / 2;
                out.f_narrow(1, 0, half)?.f_silu()?.f_mul(&out.f_narrow(1, half, half)?)
            }
        }
    }

    /// Adds the product of `x` to `sum` (`[n, out]`, contiguous, of the same type).
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn add_to(&self, x: &Tensor, sum: &mut Tensor) -> Result<(), TchError> {
        match &self.matrix {
            Matrix::Packed(packed, activations) if !self.gated => {
                Product::new(packed, self.arranged.as_deref(), *activations)?.add_to(x, sum)
            }
            _ => sum.f_add_(&self.forward(x)?).map(|_| ()),
        }
    }
}

/// The product that ends a model: logits in f32 whatever the rest is, as verification compares log-probabilities and
/// bf16 logits would blind it.
pub struct Head {
    matrix: Matrix,
}

impl Head {
    /// `weight` is `[vocab, d]`.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn new(weight: &Tensor) -> Result<Self, TchError> {
        Self::quantized(weight, Quantize::None)
    }

    /// The same, kept as `quantize` says.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn quantized(weight: &Tensor, quantize: Quantize) -> Result<Self, TchError> {
        Ok(Self { matrix: Matrix::new(weight.shallow_clone(), Order::Plain, quantize, Isa::best())? })
    }

    /// `[n, d]` to f32 logits, `[n, vocab]`, which were never rounded to fewer bits.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        match &self.matrix {
            Matrix::Packed(packed, activations) => Product::new(packed, None, *activations)?.forward(x, Kind::Float),
            Matrix::Plain(weight) => {
                // A part at a time: all of it in f32 would be twice the weights again.
                let x = x.f_to_kind(Kind::Float)?;
                let vocab = weight.size2()?.0;
                let part = |first: i64| {
                    let rows = weight.f_narrow(0, first, HEAD_ROWS.min(vocab - first))?;
                    libtorch(&x, &rows.f_to_kind(Kind::Float)?, None)
                };
                let starts = (0..vocab).step_by(HEAD_ROWS as usize);
                Tensor::f_cat(&starts.map(part).collect::<Result<Vec<_>, _>>()?, 1)
            }
        }
    }
}

/// The rows that stand for tokens where a model begins.
pub struct Embedding {
    matrix: Matrix,
    kind: Kind,
}

impl Embedding {
    /// `weight` is `[vocab, d]`.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn new(weight: Tensor) -> Result<Self, TchError> {
        Ok(Self { kind: weight.f_kind()?, matrix: Matrix::Plain(weight) })
    }

    /// An embedding that is also the head, in memory once.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn tied(weight: Tensor, quantize: Quantize) -> Result<(Self, Head), TchError> {
        let kind = weight.f_kind()?;
        let matrix = Matrix::new(weight, Order::Plain, quantize, Isa::best())?;
        Ok((Self { matrix: matrix.share(), kind }, Head { matrix }))
    }

    /// The rows of `tokens` (i64, `[n]`, all below the vocabulary's size): `[n, d]`.
    ///
    /// # Errors
    /// If a token is not in the vocabulary.
    pub fn forward(&self, tokens: &Tensor) -> Result<Tensor, TchError> {
        let packed = match &self.matrix {
            Matrix::Plain(weight) => return Tensor::f_embedding(weight, tokens, -1, false, false),
            Matrix::Packed(packed, _) => packed,
        };
        let tokens: Vec<i64> = Vec::try_from(tokens)?;
        if tokens.iter().any(|token| usize::try_from(*token).map_or(true, |token| token >= packed.out)) {
            return Err(TchError::Torch("a token is outside the vocabulary".into()));
        }
        let mut out = Tensor::f_empty([tokens.len() as i64, packed.depth as i64], (self.kind, Device::Cpu))?;
        match self.kind {
            Kind::BFloat16 => rows::<Bf16>(packed, &tokens, slice_mut(&mut out)?),
            _ => rows::<f32>(packed, &tokens, slice_mut(&mut out)?),
        }
        Ok(out)
    }
}

fn rows<T: Element>(packed: &Packed, tokens: &[i64], out: &mut [T]) {
    pool::run_chunks(out, packed.depth, &|index, row| packed.row(tokens[index] as usize, row));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(size: &[i64], kind: Kind) -> Tensor {
        tch::manual_seed(size.iter().sum());
        Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind)
    }

    fn apart(a: &Tensor, b: &Tensor) -> f64 {
        let b = b.to_kind(Kind::Double);
        ((a.to_kind(Kind::Double) - &b).abs().max() / b.abs().max()).double_value(&[])
    }

    #[test]
    fn linear_should_agree_with_libtorch_on_every_path() {
        for (kind, allowed) in [(Kind::Float, 2e-6), (Kind::BFloat16, 0.015)] {
            let (x, weight, bias) = (random(&[5, 48], kind), random(&[64, 48], kind), random(&[64], kind));
            let wide = |x: &Tensor| x.to_kind(Kind::Double);
            let whole = wide(&x).linear(&wide(&weight), Some(&wide(&bias)));
            let gated = whole.narrow(1, 0, 32).silu() * whole.narrow(1, 32, 32);
            for isa in [Isa::Portable, Isa::best()] {
                let build = |order| {
                    Linear::build(weight.shallow_clone(), Some(bias.shallow_clone()), order, Quantize::None, isa)
                        .unwrap()
                };
                assert!(apart(&build(Order::Plain).forward(&x).unwrap(), &whole) < allowed);
                assert!(apart(&build(Order::Gated).forward(&x).unwrap(), &gated) < allowed);
                let mut sum = random(&[5, 64], kind);
                let expected = &sum + &whole;
                build(Order::Plain).add_to(&x, &mut sum).unwrap();
                assert!(apart(&sum, &expected) < allowed);
                assert!(build(Order::Plain).forward(&x.narrow(1, 0, 46)).is_err());
            }
        }
    }

    #[test]
    fn head_should_give_logits_that_were_never_rounded() {
        let (x, weight) = (random(&[3, 64], Kind::BFloat16), random(&[20_000, 64], Kind::BFloat16));
        let exact = x.to_kind(Kind::Double).linear(&weight.to_kind(Kind::Double), None::<&Tensor>);
        for isa in [Isa::Portable, Isa::best()] {
            let head = Head { matrix: Matrix::new(weight.shallow_clone(), Order::Plain, Quantize::None, isa).unwrap() };
            let logits = head.forward(&x).unwrap();
            assert_eq!(logits.kind(), Kind::Float);
            assert!(apart(&logits, &exact) < 1e-6);
        }
    }

    #[test]
    fn tied_embedding_should_give_the_rows_of_its_head() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let weight = random(&[70, 24], kind);
            let tokens = Tensor::from_slice(&[0i64, 69, 33, 33]);
            let expected = weight.index_select(0, &tokens);
            let (embedding, _) = Embedding::tied(weight.shallow_clone(), Quantize::None).unwrap();
            assert_eq!(embedding.forward(&tokens).unwrap(), expected);
            assert!(embedding.forward(&Tensor::from_slice(&[70i64])).is_err());
            assert_eq!(Embedding::new(weight).unwrap().forward(&tokens).unwrap(), expected);
        }
    }

    #[test]
    fn quantised_products_should_be_near_the_exact_ones() {
        let (x, weight) = (random(&[6, 256], Kind::BFloat16), random(&[96, 256], Kind::BFloat16));
        let exact = x.to_kind(Kind::Double).linear(&weight.to_kind(Kind::Double), None::<&Tensor>);
        for (quantize, allowed) in [(Quantize::Int8, 0.015), (Quantize::W8A8, 0.03)] {
            let linear = Linear::quantized(weight.shallow_clone(), None, quantize).unwrap();
            let error = apart(&linear.forward(&x).unwrap(), &exact);
            assert!(error < allowed && error > 1e-4, "{quantize:?}: {error}");
            let head = Head::quantized(&weight, quantize).unwrap();
            assert!(apart(&head.forward(&x).unwrap(), &exact) < allowed);
        }
    }

    #[test]
    fn libtorch_should_give_a_row_the_same_bits_in_deterministic_mode() {
        crate::kernels::set_deterministic(true);
        for kind in [Kind::Float, Kind::BFloat16] {
            let (x, weight) = (random(&[9, 96], kind), random(&[64, 96], kind));
            let linear = Linear::build(weight, None, Order::Plain, Quantize::None, Isa::Portable).unwrap();
            let together = linear.forward(&x).unwrap();
            for row in 0..9 {
                assert_eq!(linear.forward(&x.narrow(0, row, 1)).unwrap().get(0), together.get(row));
            }
        }
        crate::kernels::set_deterministic(false);
    }
}
