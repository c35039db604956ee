//! Shapes of the network: presets, bounds, and where each matrix lies.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{error::Error, threshold::threshold_for_one_in};

/// Matrices of a layer: q, k, v, o, gate, up, down. The output matrix follows those of the last layer.
pub const MATRICES_PER_LAYER: u32 = 7;

/// Largest inner dimension of a product: 128 * 8 * 16,384 = 2^24.
const MAX_INNER: u32 = 16_384;
/// Largest head width for which scores, too, stay within 2^24.
const MAX_HEAD_WIDTH: u32 = 1_024;
/// Longest sequence; mixed values stay within 2^15 * 64.
const MAX_POSITIONS: u32 = 64;
/// Most layers and outputs: bounds of this implementation, far above every preset.
const MAX_LAYERS: u32 = 1_024;
const MAX_OUTPUTS: u32 = 65_536;

/// Shape of a Sprint's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Config {
	/// `L`.
	pub layers: u32,
	/// `d`, model width.
	pub width: u32,
	/// `H`.
	pub heads: u32,
	/// `h`.
	pub head_width: u32,
	/// `F`, FFN width.
	pub ffn: u32,
	/// `V`, output width.
	pub outputs: u32,
	/// `S`, sequence length.
	pub positions: u32,
}

/// The networks that a chain can select. The index is that of the variant; new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Preset {
	/// Tests and local networks.
	#[codec(index = 0)]
	Dev,
	/// Measuring on a CPU.
	#[codec(index = 1)]
	Bench,
	/// Production default: the paper's model.
	#[codec(index = 2)]
	Whitepaper,
	/// Production alternative with wider products.
	#[codec(index = 3)]
	Wide,
}

/// Number of rows (outputs) and columns (inputs) of a matrix, and its number among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
	/// Its number `m`, which is also its stream.
	pub index: u32,
	/// `N`.
	pub rows: u32,
	/// `K`.
	pub columns: u32,
}

impl Matrix {
	/// Bytes of a row at two weights a byte.
	pub fn packed_row_len(&self) -> usize {
		self.columns as usize / 2
	}

	/// Bytes of the matrix at two weights a byte.
	pub fn packed_len(&self) -> usize {
		self.rows as usize * self.packed_row_len()
	}
}

impl Preset {
	/// All presets, by index.
	pub const ALL: [Preset; 4] = [Preset::Dev, Preset::Bench, Preset::Whitepaper, Preset::Wide];

	/// The preset with an index, if there is one.
	pub fn from_index(index: u8) -> Option<Preset> {
		Self::ALL.get(usize::from(index)).copied()
	}

	/// Its index.
	pub fn index(self) -> u8 {
		self as u8
	}

	/// The preset with a name, if there is one.
	pub fn from_name(name: &str) -> Option<Preset> {
		Self::ALL.into_iter().find(|preset| preset.name() == name)
	}

	/// Its name, as operators write it.
	pub fn name(self) -> &'static str {
		match self {
			Preset::Dev => "dev",
			Preset::Bench => "bench",
			Preset::Whitepaper => "whitepaper",
			Preset::Wide => "wide",
		}
	}

	/// Its shape.
	pub const fn config(self) -> Config {
		let (layers, width, heads, head_width, ffn, outputs) = match self {
			Preset::Dev => (4, 64, 4, 16, 256, 256),
			Preset::Bench => (16, 512, 16, 64, 2048, 8192),
			Preset::Whitepaper => (64, 512, 128, 88, 8192, 8192),
			Preset::Wide => (22, 2048, 16, 128, 5632, 8192),
		};
		Config { layers, width, heads, head_width, ffn, outputs, positions: 4 }
	}

	/// The threshold that one nonce in 900 passes.
	pub fn default_threshold(self) -> u64 {
		// The table has every preset's width (a test says so); the fallback lets nothing pass.
		threshold_for_one_in(900, self.config().outputs).unwrap_or(u64::MAX)
	}
}

impl Config {
	/// Checks every bound on which exactness and the absence of panics rest.
	///
	/// # Errors
	/// [`Error::Config`] names the first bound that is broken.
	pub fn validate(&self) -> Result<(), Error> {
		let check = |ok: bool, bound: &'static str| if ok { Ok(()) } else { Err(Error::Config(bound)) };
		check((1..=MAX_LAYERS).contains(&self.layers), "1 to 1024 layers")?;
		check((1..=MAX_POSITIONS).contains(&self.positions), "1 to 64 positions")?;
		check((1..=MAX_HEAD_WIDTH).contains(&self.head_width), "head width 1 to 1024")?;
		check((1..=MAX_INNER).contains(&self.heads), "1 to 16384 heads")?;
		for inner in [self.width, self.attention_width(), self.ffn] {
			check((1..=MAX_INNER).contains(&inner) && inner % 8 == 0, "inner dimensions are multiples of 8 up to 16384")?;
		}
		check((1..=MAX_OUTPUTS).contains(&self.outputs) && self.outputs % 8 == 0, "outputs are a multiple of 8 up to 65536")
	}

	/// `H * h`.
	pub fn attention_width(&self) -> u32 {
		self.heads.saturating_mul(self.head_width)
	}

	/// Number of matrices, the output matrix included.
	pub fn matrices(&self) -> u32 {
		self.layers.saturating_mul(MATRICES_PER_LAYER).saturating_add(1)
	}

	/// Shape of matrix `index`; `None` if there is none.
	pub fn matrix(&self, index: u32) -> Option<Matrix> {
		let attention = self.attention_width();
		let (rows, columns) = match (index / MATRICES_PER_LAYER, index % MATRICES_PER_LAYER) {
			(layer, 0) if layer == self.layers => (self.outputs, self.width),
			(layer, _) if layer >= self.layers => return None,
			(_, 0..=2) => (attention, self.width),
			(_, 3) => (self.width, attention),
			(_, 4 | 5) => (self.ffn, self.width),
			(_, _) => (self.width, self.ffn),
		};
		Some(Matrix { index, rows, columns })
	}

	/// Number of weights.
	pub fn weights(&self) -> u64 {
		let layer = u64::from(self.width) * (4 * u64::from(self.attention_width()) + 3 * u64::from(self.ffn));
		u64::from(self.layers) * layer + u64::from(self.outputs) * u64::from(self.width)
	}

	/// Values in state `x_index`, `index` from 0 to `L`.
	pub fn state_len(&self, index: u32) -> usize {
		let positions = if index < self.layers { self.positions } else { 1 };
		positions as usize * self.width as usize
	}

	/// Multiply-adds of the matrix products that one nonce needs: without the last layer's positions that nothing
	/// reads, and without q at position 0.
	pub fn needed_macs(&self) -> u64 {
		let (d, a, f) = (u64::from(self.width), u64::from(self.attention_width()), u64::from(self.ffn));
		let (layers, s) = (u64::from(self.layers), u64::from(self.positions));
		let inner = s.saturating_sub(1) * d * a + s * d * (3 * a + 3 * f);
		let last_q = if s > 1 { d * a } else { 0 };
		let last = last_q + s * d * 2 * a + d * (a + 3 * f);
		layers.saturating_sub(1) * inner + last + d * u64::from(self.outputs)
	}
}
