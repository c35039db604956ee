//! The numeric profile: what decides how far honest logits of two machines lie apart.

use codec::{Decode, Encode};

/// Kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum DeviceClass {
	/// Any CPU.
	Cpu,
	/// A CUDA device by compute capability.
	Cuda {
		/// Major version.
		major: u8,
		/// Minor version.
		minor: u8,
	},
}

/// Number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum DType {
	/// IEEE single.
	F32,
	/// bfloat16.
	Bf16,
	/// IEEE half.
	F16,
	/// 8-bit float.
	Fp8,
	/// 8-bit integer.
	Int8,
	/// 4-bit integer.
	Int4,
	/// 8-bit integer, and activations are rounded to the same before each product.
	W8A8,
}

/// How attention is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum AttentionPath {
	/// Matrix product, softmax, matrix product.
	Eager,
	/// Fused: one pass over keys and values with scores, weights and sums in f32. libtorch's scaled dot product, and on CPUs
	/// also the engine's own over its paged cache: one answer may use both, by the length of a step and the vector units, so
	/// they are one path. The thresholds of CPUs were measured with engines that do so.
	Sdpa,
	/// A paged kernel whose sums are in another format.
	Paged,
	/// An external server whose kernels are not known.
	External,
}

/// The numeric profile of an engine and a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Profile {
	/// Device.
	pub device: DeviceClass,
	/// Format of the weights.
	pub weights: DType,
	/// Format of the KV cache.
	pub kv: DType,
	/// Attention.
	pub attention: AttentionPath,
}

impl Profile {
	/// Whether a registered model may be served so: with its weights as they are, by an engine whose sampling is this
	/// crate's. What a chain's registration says of a model does not name anything less yet.
	pub fn is_whole(&self) -> bool {
		let whole = |format| matches!(format, DType::F32 | DType::Bf16 | DType::F16);
		whole(self.weights) && whole(self.kv) && self.attention != AttentionPath::External
	}

	/// A CPU that computes everything in single precision with fused attention.
	pub const CPU_F32: Profile =
		Profile { device: DeviceClass::Cpu, weights: DType::F32, kv: DType::F32, attention: AttentionPath::Sdpa };
}
