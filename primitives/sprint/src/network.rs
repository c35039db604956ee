//! The network itself, a step at a time.

use alloc::{vec, vec::Vec};

use crate::{
	attention::{dot, mix},
	config::{Config, Matrix, MATRICES_PER_LAYER},
	error::Error,
	hashing::{node_seed, Hash},
	keystream::{Keystream, Label},
	verdict::{permute, Score},
};

/// Keeps the low 8 bits of `x >> shift` as two's complement.
#[inline]
pub fn fold(x: i32, shift: u32) -> i8 {
	(x >> shift) as i8
}

/// One race: shape and seed. Holds no weights; every row is derived when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sprint {
	config: Config,
	seed: Hash,
}

/// Rows of a weight matrix in order, derived as they are read.
pub struct WeightRows {
	stream: Keystream,
	packed: Vec<u8>,
}

impl WeightRows {
	/// Writes the next row.
	fn read(&mut self, row: &mut [i8]) {
		self.stream.fill(&mut self.packed);
		for (pair, byte) in row.chunks_exact_mut(2).zip(&self.packed) {
			if let [low, high] = pair {
				*low = (byte & 15) as i8 - 8;
				*high = (byte >> 4) as i8 - 8;
			}
		}
	}
}

impl Sprint {
	/// A race.
	///
	/// # Errors
	/// [`Error::Config`] if the shape breaks a bound.
	pub fn new(config: Config, seed: Hash) -> Result<Self, Error> {
		config.validate()?;
		Ok(Sprint { config, seed })
	}

	/// Its shape.
	pub fn config(&self) -> &Config {
		&self.config
	}

	/// Its seed.
	pub fn seed(&self) -> &Hash {
		&self.seed
	}

	/// Shape of a matrix.
	fn matrix(&self, index: u32) -> Result<Matrix, Error> {
		self.config.matrix(index).ok_or(Error::Row { matrix: index, row: 0 })
	}

	/// The keystream of a matrix: nibble `row * K + column` is the weight plus 8.
	///
	/// # Errors
	/// [`Error::Row`] if there is no such matrix.
	pub fn weight_stream(&self, matrix: u32) -> Result<Keystream, Error> {
		self.matrix(matrix)?;
		Ok(Keystream::new(Label::Weights, &self.seed, &[], u64::from(matrix)))
	}

	/// The rows of a matrix from `row` on.
	fn rows(&self, matrix: &Matrix, row: u32) -> WeightRows {
		let mut stream = Keystream::new(Label::Weights, &self.seed, &[], u64::from(matrix.index));
		// K is a multiple of 8, so a row begins at a whole word.
		stream.seek(u64::from(row) * u64::from(matrix.columns / 8));
		WeightRows { stream, packed: vec![0; matrix.packed_row_len()] }
	}

	/// One row of a matrix.
	///
	/// # Errors
	/// [`Error::Row`] if there is none.
	pub fn weight_row(&self, matrix: u32, row: u32) -> Result<Vec<i8>, Error> {
		let shape = self.matrix(matrix)?;
		if row >= shape.rows {
			return Err(Error::Row { matrix, row });
		}
		let mut weights = vec![0; shape.columns as usize];
		self.rows(&shape, row).read(&mut weights);
		Ok(weights)
	}

	/// `fold(x W^T, shift(K))` for the rows of `x`.
	fn product(&self, matrix: u32, x: &[i8]) -> Result<Vec<i8>, Error> {
		let shape = self.matrix(matrix)?;
		let (outputs, inner) = (shape.rows as usize, shape.columns as usize);
		let shift = shape.columns.ilog2() / 2;
		let mut rows = self.rows(&shape, 0);
		let mut weights = vec![0i8; inner];
		let mut y = vec![0i8; x.len() / inner * outputs];
		for output in 0..outputs {
			rows.read(&mut weights);
			for (value, position) in y.iter_mut().skip(output).step_by(outputs).zip(x.chunks_exact(inner)) {
				*value = fold(dot(position, &weights), shift);
			}
		}
		Ok(y)
	}

	/// The *input* step: `x_0` of a nonce.
	pub fn input(&self, host: &Hash, nonce: u64) -> Vec<i8> {
		let mut x = vec![0; self.config.state_len(0)];
		Keystream::new(Label::Input, &self.seed, &node_seed(host), nonce).fill_i8(&mut x);
		x
	}

	/// The *layer* step: `x_(index+1)` from `x_index`.
	///
	/// # Errors
	/// [`Error::Layer`] if there is no such layer, [`Error::Length`] if the state has a wrong length.
	pub fn layer(&self, index: u32, state: &[i8]) -> Result<Vec<i8>, Error> {
		if index < self.config.layers {
			Error::check_length(state.len(), self.config.state_len(index))?;
		}
		self.layer_of_many(index, state)
	}

	/// As [`Sprint::layer`] for the states of several nonces, one after the other: every row of weights is derived once
	/// for all of them.
	///
	/// # Errors
	/// As [`Sprint::layer`].
	pub fn layer_of_many(&self, index: u32, states: &[i8]) -> Result<Vec<i8>, Error> {
		let config = &self.config;
		if index >= config.layers {
			return Err(Error::Layer(index));
		}
		let (state_len, row_len) = (config.state_len(index), config.attention_width() as usize);
		Error::check_length(states.len() % state_len, 0)?;
		// Nothing reads the last layer's other positions.
		let first = if index + 1 == config.layers { config.positions as usize - 1 } else { 0 };
		let needed = config.positions as usize - first;
		let x: Vec<i8> =
			states.chunks_exact(state_len).flat_map(|x| x.iter().skip(first * config.width as usize)).copied().collect();
		let matrix = index * MATRICES_PER_LAYER;

		let q = self.product(matrix, &x)?;
		let k = self.product(matrix + 1, states)?;
		let v = self.product(matrix + 2, states)?;
		let all = config.positions as usize * row_len;
		let nonces = q.chunks_exact(needed * row_len).zip(k.chunks_exact(all)).zip(v.chunks_exact(all));
		let mixed: Vec<i8> = nonces.flat_map(|((q, k), v)| mix(config, first, q, k, v)).collect();
		let x = wrapping_sum(&x, &self.product(matrix + 3, &mixed)?);

		let gate = self.product(matrix + 4, &x)?;
		let up = self.product(matrix + 5, &x)?;
		let gated: Vec<i8> = gate.iter().zip(&up).map(|(g, u)| fold(i32::from(*g) * i32::from(*u), 4)).collect();
		Ok(wrapping_sum(&x, &self.product(matrix + 6, &gated)?))
	}

	/// The *output* step: `y` from `x_L`.
	///
	/// # Errors
	/// [`Error::Length`] if the state has a wrong length.
	pub fn output(&self, state: &[i8]) -> Result<Vec<i8>, Error> {
		Error::check_length(state.len(), self.config.state_len(self.config.layers))?;
		self.product(self.config.layers * MATRICES_PER_LAYER, state)
	}

	/// The outputs `y` of several nonces, one after the other: as one at a time, with every row of weights derived once.
	///
	/// # Errors
	/// None that a valid race can cause; those of the steps.
	pub fn outputs_of_many(&self, host: &Hash, nonces: &[u64]) -> Result<Vec<i8>, Error> {
		let mut states: Vec<i8> = nonces.iter().flat_map(|nonce| self.input(host, *nonce)).collect();
		for layer in 0..self.config.layers {
			states = self.layer_of_many(layer, &states)?;
		}
		self.product(self.config.layers * MATRICES_PER_LAYER, &states)
	}

	/// Permutation `p` of a nonce: `z[i] = y[p[i]]`.
	pub fn permutation(&self, host: &Hash, nonce: u64) -> Vec<u32> {
		let mut stream = Keystream::new(Label::Permutation, &self.seed, &node_seed(host), nonce);
		let mut p: Vec<u32> = (0..self.config.outputs).collect();
		for i in (1..p.len()).rev() {
			let j = (u64::from(stream.word()) * (i as u64 + 1)) >> 32;
			p.swap(i, j as usize);
		}
		p
	}

	/// The target vector.
	pub fn target(&self) -> Vec<i8> {
		let mut t = vec![0; self.config.outputs as usize];
		Keystream::new(Label::Target, &self.seed, &[], 0).fill_i8(&mut t);
		t
	}

	/// The *verdict* step: how close the output `y` of a nonce is to the target.
	///
	/// # Errors
	/// [`Error::Length`] if `y` has a wrong length.
	pub fn score(&self, host: &Hash, nonce: u64, y: &[i8]) -> Result<Score, Error> {
		Error::check_length(y.len(), self.config.outputs as usize)?;
		Score::new(&permute(y, &self.permutation(host, nonce))?, &self.target())
	}
}

/// Element-wise sum, wrapping.
fn wrapping_sum(a: &[i8], b: &[i8]) -> Vec<i8> {
	a.iter().zip(b).map(|(a, b)| a.wrapping_add(*b)).collect()
}
