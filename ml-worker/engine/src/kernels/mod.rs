//! The engine's own arithmetic on a CPU: what libtorch does not do, or does slower than memory allows.
//!
//! Words: a *region* is a piece of work that is cut into tasks and spread over the threads of the [`pool`]; a *row* is
//! one token of the flat batch.
//!
//! Rules of this module:
//! 1. An output element is one chain of additions in an order that depends on nothing but the shapes of its own row:
//!    neither on the number of rows beside it, nor on the number of threads, nor on who computes what. This is what
//!    makes answers independent of the batch bit for bit.
//! 2. Vector units are found at run time; every kernel has a portable path, which tests force through [`Isa`].
//! 3. Sums are kept in f32 whatever the operands are.
//! 4. `unsafe` stays inside: public functions check shapes, indices and layouts first.

pub mod element;
pub mod fused;
pub mod packed;
pub mod paged;
#[cfg(target_arch = "x86_64")]
mod paged_x86;
pub mod pool;
pub mod product;
mod product_plain;
#[cfg(target_arch = "x86_64")]
mod product_x86;

use std::sync::atomic::{AtomicBool, Ordering};

static DETERMINISTIC: AtomicBool = AtomicBool::new(false);

/// Asks every part of this process for the same bits whatever the batch, its cut into steps and what was cached: also
/// where libtorch computes, which then gets one row at a time. To be called before anything is computed.
pub fn set_deterministic(on: bool) {
    DETERMINISTIC.store(on, Ordering::Relaxed);
}

/// Whether [`set_deterministic`] was asked for.
pub fn deterministic() -> bool {
    DETERMINISTIC.load(Ordering::Relaxed)
}

/// Which vector units a kernel may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 with its products of bf16 and int8 (F, BW, VL, DQ, BF16, VNNI).
    Avx512Bf16,
    /// What every processor has; compilers may still vectorise it.
    Portable,
}

impl Isa {
    /// The best of this machine.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bf16")
            && is_x86_feature_detected!("avx512vnni")
        {
            return Self::Avx512Bf16;
        }
        Self::Portable
    }
}

/// Runs `body`, compiled for wider vectors if `isa` has them. `body` should be small enough to be inlined.
#[inline(always)]
pub(crate) fn vectorised<R>(isa: Isa, body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        fn wide<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        if isa == Isa::Avx512Bf16 {
            // SAFETY: whoever made this value found the features.
            return unsafe { wide(body) };
        }
    }
    let _ = isa;
    body()
}
