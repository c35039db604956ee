//! Models: weights from a checkpoint ([`weights`]), parts ([`layers`]), one file per family ([`llama`]), and the
//! runner that drives them ([`torch_runner`]).

pub mod layers;
pub mod llama;
pub mod torch_runner;
pub mod weights;

pub use torch_runner::{load, LoadError, TorchRunner};
pub use weights::weights_hash;
