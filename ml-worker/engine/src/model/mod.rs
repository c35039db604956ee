//! Models: weights from a checkpoint ([`weights`]), parts ([`linear`], [`norm`], [`rope`], [`attention`]), one file per
//! family ([`llama`]), and the runner that drives them ([`torch_runner`]).

pub mod attention;
pub mod linear;
pub mod llama;
pub mod norm;
pub mod rope;
pub mod torch_runner;
pub mod weights;

pub use torch_runner::{load, LoadError, TorchRunner};
pub use weights::weights_hash;
