//! Arithmetic of packed matrices: codes, zeros and scales to floats. Slices in, slices out; nothing is checked here
//! beyond Rust's bounds (`quantised.rs` has checked shapes and groups).
//!
//! A matrix is `[outputs, inputs]` once it is unpacked. A weight is `(code - zero) * scale` in f32, one rounding, so that
//! whoever follows the formats gets the same bits.

/// Where AWQ keeps the codes of eight outputs in a word: its nibbles hold outputs 0, 2, 4, 6, 1, 3, 5, 7.
const AWQ_SHIFTS: [u32; 8] = [0, 16, 4, 20, 8, 24, 12, 28];

/// How codes lie in words of 32 bits, whose bytes are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Inputs of one output follow each other in a word, lowest bits first; words are `[inputs / (32 / bits),
    /// outputs]`. Zeros are packed the same way along the outputs.
    Gptq {
        /// Bits of a code.
        bits: usize,
        /// Whether zeros are stored less one.
        zeros_less_one: bool,
    },
    /// Eight outputs of one input share a word; words are `[inputs, outputs / 8]`. Zeros likewise.
    Awq,
}

impl Layout {
    /// Bits of a code.
    pub fn bits(self) -> usize {
        match self {
            Self::Gptq { bits, .. } => bits,
            Self::Awq => 4,
        }
    }

    /// Codes in a word.
    pub fn per_word(self) -> usize {
        32 / self.bits()
    }

    /// Zeros of a `[groups, outputs / codes in a word]` tensor, as `[groups, outputs]`.
    pub fn zeros(self, bytes: &[u8]) -> Vec<f32> {
        let (bits, per_word) = (self.bits() as u32, self.per_word() as u32);
        let mask = u32::MAX >> (32 - bits);
        let zero = move |word: u32, place: u32| match self {
            // A zero of 0 is stored as the largest code, so the sum wraps.
            Self::Gptq { zeros_less_one, .. } => (word >> (place * bits)).wrapping_add(u32::from(zeros_less_one)) & mask,
            Self::Awq => (word >> AWQ_SHIFTS[place as usize]) & mask,
        };
        words(bytes).flat_map(|word| (0..per_word).map(move |place| zero(word, place) as f32)).collect()
    }
}

/// Little-endian words.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

/// A matrix of whole numbers with zeros and scales.
pub struct Codes {
    /// How codes lie.
    pub layout: Layout,
    /// The words.
    pub words: Vec<u32>,
    /// `[groups, outputs]`.
    pub zeros: Vec<f32>,
    /// `[groups, outputs]`.
    pub scales: Vec<f32>,
    /// The group of each input.
    pub groups: Vec<u32>,
    /// Outputs.
    pub outputs: usize,
}

impl Codes {
    /// Unpacks as many outputs as `out`, `[some outputs, inputs]`, has place for, from `first` on.
    pub fn rows(&self, first: usize, out: &mut [f32]) {
        let (inputs, outputs) = (self.groups.len(), self.outputs);
        let last = first + out.len() / inputs;
        for (input, group) in self.groups.iter().enumerate() {
            let group = *group as usize * outputs;
            let (zeros, scales) = (&self.zeros[group..][first..last], &self.scales[group..][first..last]);
            let mut write = |row: usize, code: u32| {
                out[row * inputs + input] = (code as f32 - zeros[row]) * scales[row];
            };
            match self.layout {
                Layout::Gptq { bits, .. } => {
                    let shift = input % (32 / bits) * bits;
                    let words = &self.words[input / (32 / bits) * outputs..][first..last];
                    words
                        .iter()
                        .enumerate()
                        .for_each(|(row, word)| write(row, word >> shift & (u32::MAX >> (32 - bits))));
                }
                Layout::Awq => {
                    let words = &self.words[input * (outputs / 8)..][..outputs / 8];
                    (first..last).for_each(|output| {
                        write(output - first, words[output / 8] >> AWQ_SHIFTS[output % 8] & 15);
                    });
                }
            }
        }
    }
}

/// A matrix of floats of 8 bits with scales.
pub struct Floats<'a> {
    /// `[outputs, inputs]`.
    pub bytes: &'a [u8],
    /// `[outputs / block, inputs / block]`, rounded up; what is said of one block holds for all in it.
    pub scales: Vec<f32>,
    /// Outputs and inputs of a block.
    pub block: (usize, usize),
    /// Inputs.
    pub inputs: usize,
}

impl Floats<'_> {
    /// As [`Codes::rows`].
    pub fn rows(&self, first: usize, out: &mut [f32]) {
        let (inputs, (rows, columns)) = (self.inputs, self.block);
        let across = inputs.div_ceil(columns);
        for (row, out) in out.chunks_exact_mut(inputs).enumerate() {
            let row = first + row;
            let bytes = &self.bytes[row * inputs..][..inputs];
            let scales = &self.scales[row / rows * across..][..across];
            let blocks = out.chunks_mut(columns).zip(bytes.chunks(columns)).zip(scales);
            for ((out, bytes), scale) in blocks {
                out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = E4M3[*byte as usize] * scale);
            }
        }
    }
}

/// Every float of 8 bits.
static E4M3: [f32; 256] = {
    let (mut table, mut byte) = ([0.0; 256], 0);
    while byte < 256 {
        table[byte] = e4m3(byte as u32);
        byte += 1;
    }
    table
};

/// A sign, four bits of exponent with a bias of 7, three of mantissa; no infinities, and all ones is no number.
const fn e4m3(byte: u32) -> f32 {
    let (exponent, mantissa) = (byte >> 3 & 15, byte & 7);
    let size = match (exponent, mantissa) {
        (15, 7) => f32::NAN,
        // Without a leading one, in steps of 2^-9.
        (0, _) => mantissa as f32 / 512.0,
        _ => f32::from_bits(exponent + 127 - 7 << 23 | mantissa << 20),
    };
    if byte & 128 != 0 {
        -size
    } else {
        size
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
