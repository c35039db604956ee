//! What stands between products, in one pass over memory each: norms, rotary positions, writing to the cache.

use super::element::{refuse, slice, slice_mut, Bf16, Element};
use super::{pool, vectorised, Isa};
use tch::{Device, Kind, TchError, Tensor};

/// Elements worth a task of their own: some microseconds.
const TASK_ELEMENTS: usize = 1 << 14;
/// Lanes of a sum over a row.
const LANES: usize = 16;

/// Whether tensors of this type and place are for these kernels.
pub fn takes(x: &Tensor) -> bool {
    x.device() == Device::Cpu && matches!(x.f_kind(), Ok(Kind::BFloat16 | Kind::Float))
}

/// Root-mean-square norm over the last axis of `x` (`[.., d]`): computed in f32, rounded, multiplied with `weight`
/// (`[d]`, of the same type) and rounded again, as the reference implementations do.
///
/// # Errors
/// If the types or sizes do not fit, or [`takes`] says no.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, TchError> {
    let x = x.f_contiguous()?;
    let mut out = x.f_empty_like()?;
    match x.f_kind()? {
        Kind::BFloat16 => norm_rows::<Bf16>(slice(&x)?, slice(weight)?, eps as f32, slice_mut(&mut out)?)?,
        _ => norm_rows::<f32>(slice(&x)?, slice(weight)?, eps as f32, slice_mut(&mut out)?)?,
    }
    Ok(out)
}

fn norm_rows<T: Element>(x: &[T], weight: &[T], eps: f32, out: &mut [T]) -> Result<(), TchError> {
    let d = weight.len();
    if d == 0 || x.len() % d != 0 {
        return Err(refuse(format!("{} elements are no rows of {d}", x.len())));
    }
    let at_once = (TASK_ELEMENTS / d).max(1) * d;
    let isa = Isa::best();
    pool::run_chunks(out, at_once, &|index, out| {
        let x = &x[index * at_once..][..out.len()];
        vectorised(isa, || {
            for row in 0..out.len() / d {
                norm_row(&x[row * d..(row + 1) * d], weight, eps, &mut out[row * d..(row + 1) * d]);
            }
        });
    });
    Ok(())
}

// By index: iterator adapters are not inlined into code for newer processors.
#[inline(always)]
fn norm_row<T: Element>(x: &[T], weight: &[T], eps: f32, out: &mut [T]) {
    let d = x.len().min(weight.len()).min(out.len());
    let mut lanes = [0f32; LANES];
    for part in 0..d / LANES {
        for lane in 0..LANES {
            let value = x[part * LANES + lane].wide();
            lanes[lane] += value * value;
        }
    }
    let mut rest = 0f32;
    for at in d / LANES * LANES..d {
        rest += x[at].wide() * x[at].wide();
    }
    let mut sum = 0f32;
    for lane in 0..LANES {
        sum += lanes[lane];
    }
    let factor = 1.0 / ((sum + rest) / d as f32 + eps).sqrt();
    for at in 0..d {
        out[at] = T::narrow(T::narrow(x[at].wide() * factor).wide() * weight[at].wide());
    }
}

/// Sizes and weights of the heads that follow each other in a row: queries, keys, values.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// Query heads.
    pub queries: usize,
    /// Key heads, and value heads.
    pub kv: usize,
    /// Width of a head.
    pub dim: usize,
    /// Weights of the norms of each head's queries and of its keys (`[dim]`), and what is added to the mean square.
    pub norms: Option<(&'a Tensor, &'a Tensor, f64)>,
}

/// Takes rows of joined queries, keys and values (`[n, (queries + 2 kv) dim]`) apart: queries and keys are normed if the
/// model does so and turned by the rows of `cos` and `sin` (`n` times `dim / 2` elements); keys and values go to the
/// rows `places` (`[n * kv]`, in units of `dim` elements) of a layer's pools. Returns the queries, `[n, queries,
/// dim]`.
///
/// # Errors
/// If a size or type does not fit, or a place is outside the pools.
pub fn rotate_and_keep(
    joined: &Tensor,
    heads: Heads<'_>,
    angles: (&Tensor, &Tensor),
    places: &[i64],
    pools: (&Tensor, &Tensor),
) -> Result<Tensor, TchError> {
    let n = joined.size2()?.0;
    let mut queries = Tensor::f_empty([n, heads.queries as i64, heads.dim as i64], (joined.f_kind()?, Device::Cpu))?;
    match joined.f_kind()? {
        Kind::BFloat16 => keep::<Bf16>(joined, heads, angles, places, pools, &mut queries)?,
        _ => keep::<f32>(joined, heads, angles, places, pools, &mut queries)?,
    }
    Ok(queries)
}

fn keep<T: Element>(
    joined: &Tensor,
    heads: Heads<'_>,
    (cos, sin): (&Tensor, &Tensor),
    places: &[i64],
    (keys, values): (&Tensor, &Tensor),
    queries: &mut Tensor,
) -> Result<(), TchError> {
    let Heads { queries: count, kv, dim, norms } = heads;
    let (half, width) = (dim / 2, (count + 2 * kv) * dim);
    let (joined, cos, sin) = (slice::<T>(joined)?, slice::<T>(cos)?, slice::<T>(sin)?);
    let n = joined.len() / width.max(1);
    let (mut keys, mut values) = (keys.shallow_clone(), values.shallow_clone());
    let (keys, values) = (slice_mut::<T>(&mut keys)?, slice_mut::<T>(&mut values)?);
    let room = keys.len().min(values.len()) / dim.max(1);
    let fits = dim > 0
        && dim % 2 == 0
        && joined.len() == n * width
        && cos.len() == n * half
        && sin.len() == n * half
        && places.len() == n * kv
        && keys.as_ptr() != values.as_ptr()
        && places.iter().all(|place| usize::try_from(*place).is_ok_and(|place| place < room));
    if !fits {
        return Err(refuse("queries, keys and values do not fit their angles or places"));
    }
    let norms = match norms {
        Some((query, key, eps)) => Some((slice::<T>(query)?, slice::<T>(key)?, eps as f32)),
        None => None,
    };
    if norms.is_some_and(|(query, key, _)| query.len() != dim || key.len() != dim) {
        return Err(refuse("norms of heads do not fit"));
    }
    let isa = Isa::best();
    let own = count * dim;
    let place = |row: usize, head: usize| places[row * kv + head] as usize * dim;
    // Rows are few or short: one pass by the caller costs less than handing it over, except in long prompts.
    for row in 0..n {
        vectorised(isa, || {
            let joined = &joined[row * width..][..width];
            for head in 0..kv {
                let (key, value) = (&joined[own + head * dim..][..dim], &joined[own + (kv + head) * dim..][..dim]);
                let at = place(row, head);
                let norm = norms.map(|(_, key, eps)| (key, eps));
                turn(key, norm, &cos[row * half..][..half], &sin[row * half..][..half], &mut keys[at..at + dim]);
                values[at..at + dim].copy_from_slice(value);
            }
        });
    }
    let at_once = (TASK_ELEMENTS / own.max(1)).max(1) * own;
    pool::run_chunks(slice_mut::<T>(queries)?, at_once, &|index, out| {
        vectorised(isa, || {
            for offset in 0..out.len() / dim {
                let number = index * at_once / dim + offset;
                let out = &mut out[offset * dim..(offset + 1) * dim];
                let (row, head) = (number / count, number % count);
                let norm = norms.map(|(query, _, eps)| (query, eps));
                let query = &joined[row * width + head * dim..][..dim];
                turn(query, norm, &cos[row * half..][..half], &sin[row * half..][..half], out);
            }
        });
    });
    Ok(())
}

/// Norms one head if asked to and turns its halves against each other.
#[inline(always)]
fn turn<T: Element>(x: &[T], norm: Option<(&[T], f32)>, cos: &[T], sin: &[T], out: &mut [T]) {
    let half = cos.len();
    match norm {
        None => {
            let (a, b) = x.split_at(half);
            let (first, second) = out.split_at_mut(half);
            for i in 0..half.min(sin.len()).min(b.len()).min(second.len()) {
                let (a, b, cos, sin) = (a[i].wide(), b[i].wide(), cos[i].wide(), sin[i].wide());
                first[i] = T::narrow(a * cos - b * sin);
                second[i] = T::narrow(b * cos + a * sin);
            }
        }
        Some((weight, eps)) => {
            norm_row(x, weight, eps, out);
            let (first, second) = out.split_at_mut(half);
            for i in 0..half.min(sin.len()).min(second.len()) {
                let (a, b, cos, sin) = (first[i].wide(), second[i].wide(), cos[i].wide(), sin[i].wide());
                first[i] = T::narrow(a * cos - b * sin);
                second[i] = T::narrow(b * cos + a * sin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(size: &[i64], kind: Kind) -> Tensor {
        tch::manual_seed(size.iter().sum());
        Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind)
    }

    fn apart(a: &Tensor, b: &Tensor) -> f64 {
        (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
    }

    fn plain_norm(x: &Tensor, weight: &Tensor) -> Tensor {
        let wide = x.to_kind(Kind::Float);
        let mean = wide.square().mean_dim([-1i64].as_slice(), true, Kind::Float);
        (wide * (mean + 1e-6).rsqrt()).to_kind(x.kind()) * weight
    }

    #[test]
    fn rms_norm_should_equal_the_same_in_steps() {
        for (kind, allowed) in [(Kind::Float, 2e-6), (Kind::BFloat16, 0.02)] {
            for size in [[1i64, 896], [50, 896], [3, 7], [70, 64]] {
                let (x, weight) = (random(&size, kind), random(&size[1..], kind));
                assert!(apart(&rms_norm(&x, &weight, 1e-6).unwrap(), &plain_norm(&x, &weight)) < allowed);
            }
            assert!(rms_norm(&random(&[3, 7], kind), &random(&[5], kind), 1e-6).is_err());
        }
    }

    #[test]
    fn heads_should_be_turned_and_kept_where_the_places_say() {
        for (kind, allowed) in [(Kind::Float, 2e-6), (Kind::BFloat16, 0.04)] {
            for (n, normed) in [(1i64, false), (5, true), (40, false)] {
                let (count, kv, dim) = (6, 2, 64);
                let joined = random(&[n, (count + 2 * kv) * dim], kind);
                let (cos, sin) =
                    (random(&[n, dim / 2], kind), random(&[n, dim / 2 + 1], kind).narrow(1, 0, dim / 2).contiguous());
                let (query_norm, key_norm) = (random(&[dim], kind), random(&[dim], kind) + 1.0);
                let pools = (random(&[20, kv, 16, dim], kind), random(&[20, kv, 16, dim], kind));
                let places: Vec<i64> = (0..n * kv).map(|i| (i * 37) % 640).collect();
                let norms = normed.then_some((&query_norm, &key_norm, 1e-6));
                let heads = Heads { queries: count as usize, kv: kv as usize, dim: dim as usize, norms };
                let index = Tensor::from_slice(&places);
                let queries = rotate_and_keep(&joined, heads, (&cos, &sin), &places, (&pools.0, &pools.1)).unwrap();

                let split = joined.reshape([n, -1, dim]);
                let turned = |x: Tensor, weight: &Tensor| {
                    let x = if normed { plain_norm(&x, weight) } else { x }.to_kind(Kind::Float);
                    let (a, b) = (x.narrow(2, 0, dim / 2), x.narrow(2, dim / 2, dim / 2));
                    let (cos, sin) = (cos.to_kind(Kind::Float).unsqueeze(1), sin.to_kind(Kind::Float).unsqueeze(1));
                    Tensor::cat(&[&a * &cos - &b * &sin, &b * &cos + &a * &sin], 2)
                };
                assert!(apart(&queries, &turned(split.narrow(1, 0, count), &query_norm)) < allowed);
                let kept = |pool: &Tensor| pool.reshape([-1, dim]).index_select(0, &index).reshape([n, kv, dim]);
                assert!(apart(&kept(&pools.0), &turned(split.narrow(1, count, kv), &key_norm)) < allowed);
                assert_eq!(kept(&pools.1), split.narrow(1, count + kv, kv));

                let outside = vec![640i64; places.len()];
                assert!(rotate_and_keep(&joined, heads, (&cos, &sin), &outside, (&pools.0, &pools.1)).is_err());
            }
        }
    }
}
