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
pub mod paged;
#[cfg(target_arch = "x86_64")]
mod paged_x86;
pub mod pool;

/// Which vector units a kernel may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 with its bf16 products (F, BW, VL, DQ, BF16).
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
        {
            return Self::Avx512Bf16;
        }
        Self::Portable
    }
}
