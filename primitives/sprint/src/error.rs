//! What can be wrong with a question about the Sprint.

/// Why a step could not be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
	/// The configuration breaks the bound that the text names.
	Config(&'static str),
	/// A vector has the wrong length.
	Length {
		/// The length that was needed.
		expected: u64,
		/// The length that was given.
		found: u64,
	},
	/// The network has no such layer.
	Layer(u32),
	/// The network has no such matrix, or the matrix no such row.
	Row {
		/// The matrix asked for.
		matrix: u32,
		/// The row asked for.
		row: u32,
	},
	/// A list that must name every index once does not.
	Permutation,
	/// The state is not the one that was claimed.
	State,
}

impl Error {
	/// `Ok` if a vector has the length it needs.
	pub(crate) fn check_length(found: usize, expected: usize) -> Result<(), Error> {
		if found == expected {
			Ok(())
		} else {
			Err(Error::Length { expected: expected as u64, found: found as u64 })
		}
	}
}

impl core::fmt::Display for Error {
	fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
		match self {
			Error::Config(bound) => write!(f, "invalid configuration: {bound}"),
			Error::Length { expected, found } => write!(f, "a vector of {expected} was needed, one of {found} given"),
			Error::Layer(layer) => write!(f, "there is no layer {layer}"),
			Error::Row { matrix, row } => write!(f, "there is no row {row} in matrix {matrix}"),
			Error::Permutation => write!(f, "not a permutation"),
			Error::State => write!(f, "the state has another hash than the claimed one"),
		}
	}
}

impl core::error::Error for Error {}
