//! Models: weights from a checkpoint ([`shards`], [`weights`], [`names`]; packed ones: [`quantised`], [`unpack`]), parts
//! ([`linear`], [`norm`], [`rope`], [`ffn`]), the decoder made of them ([`decoder`]), one file per family
//! ([`families`]), adapters ([`lora`]), and the runner that drives all of it ([`torch_runner`]).

pub mod decoder;
pub mod families;
pub mod ffn;
pub mod linear;
pub mod lora;
pub mod names;
pub mod norm;
pub mod quantised;
pub mod rope;
pub mod shards;
pub mod torch_runner;
pub mod unpack;
pub mod weights;

pub use linear::Quantize;
pub use names::tensor_shapes;
pub use torch_runner::{load, load_quantized, load_with_adapters, LoadError, TorchRunner};
pub use weights::weights_hash;
