//! Many blocks of ChaCha8 side by side: word i of all blocks in one vector.
//!
//! Written with the processor's instructions where it has wide ones, because compilers keep plain arrays of this size in
//! memory (six times slower); and once plainly, for all others.

/// Blocks of 16 words made together.
pub const LANES: usize = 16;

/// Makes [`LANES`] blocks from number `block` on, word by word: `words[i][lane]` is word i of block `block + lane`. Tells
/// whether any word is at least `from`.
pub fn reaches(state: &[u32; 16], block: u32, from: u32, words: &mut [[u32; LANES]; 16]) -> bool {
	#[cfg(all(feature = "std", target_arch = "x86_64"))]
	{
		if std::is_x86_feature_detected!("avx512f") {
			// SAFETY: the processor has what the function is compiled for; it was asked just now.
			return unsafe { vector::widest(state, block, from, words) };
		}
		if std::is_x86_feature_detected!("avx2") {
			// SAFETY: as above.
			return unsafe { vector::wide(state, block, from, words) };
		}
	}
	plain(state, block, from, words)
}

#[inline(always)]
fn plain(state: &[u32; 16], block: u32, from: u32, words: &mut [[u32; LANES]; 16]) -> bool {
	let mut x = [[0u32; LANES]; 16];
	let mut i = 0;
	while i < 16 {
		x[i] = [state[i]; LANES];
		i += 1;
	}
	// Tokens have 24 bits, so the counter's upper half stays zero.
	let mut lane = 0;
	while lane < LANES {
		x[12][lane] = block.wrapping_add(lane as u32);
		lane += 1;
	}
	let counters = x[12];
	let mut round = 0;
	while round < 4 {
		quarter::<0, 4, 8, 12>(&mut x);
		quarter::<1, 5, 9, 13>(&mut x);
		quarter::<2, 6, 10, 14>(&mut x);
		quarter::<3, 7, 11, 15>(&mut x);
		quarter::<0, 5, 10, 15>(&mut x);
		quarter::<1, 6, 11, 12>(&mut x);
		quarter::<2, 7, 8, 13>(&mut x);
		quarter::<3, 4, 9, 14>(&mut x);
		round += 1;
	}
	let mut any = [0u32; LANES];
	let mut i = 0;
	while i < 16 {
		let first = if i == 12 { counters } else { [state[i]; LANES] };
		let mut lane = 0;
		while lane < LANES {
			let word = x[i][lane].wrapping_add(first[lane]);
			words[i][lane] = word;
			any[lane] |= (word >= from) as u32;
			lane += 1;
		}
		i += 1;
	}
	let mut all = 0;
	let mut lane = 0;
	while lane < LANES {
		all |= any[lane];
		lane += 1;
	}
	all != 0
}

#[inline(always)]
fn quarter<const A: usize, const B: usize, const C: usize, const D: usize>(x: &mut [[u32; LANES]; 16]) {
	add_and_turn::<A, B, D, 16>(x);
	add_and_turn::<C, D, B, 12>(x);
	add_and_turn::<A, B, D, 8>(x);
	add_and_turn::<C, D, B, 7>(x);
}

#[inline(always)]
fn add_and_turn<const A: usize, const B: usize, const D: usize, const TURN: u32>(x: &mut [[u32; LANES]; 16]) {
	let mut lane = 0;
	while lane < LANES {
		x[A][lane] = x[A][lane].wrapping_add(x[B][lane]);
		x[D][lane] = (x[D][lane] ^ x[A][lane]).rotate_left(TURN);
		lane += 1;
	}
}

#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod vector {
	use super::LANES;
	use core::arch::x86_64::*;

	macro_rules! quarter {
		($x:ident, $add:ident, $xor:ident, $turn:ident, $a:literal, $b:literal, $c:literal, $d:literal) => {
			$x[$a] = $add($x[$a], $x[$b]);
			$x[$d] = $turn::<16, 16>($xor($x[$d], $x[$a]));
			$x[$c] = $add($x[$c], $x[$d]);
			$x[$b] = $turn::<12, 20>($xor($x[$b], $x[$c]));
			$x[$a] = $add($x[$a], $x[$b]);
			$x[$d] = $turn::<8, 24>($xor($x[$d], $x[$a]));
			$x[$c] = $add($x[$c], $x[$d]);
			$x[$b] = $turn::<7, 25>($xor($x[$b], $x[$c]));
		};
	}

	macro_rules! blocks {
		($feature:literal, $name:ident, $vector:ty, $width:literal, $set:ident, $add:ident, $xor:ident, $turn:ident, $larger:ident) => {
			#[target_feature(enable = $feature)]
			pub fn $name(state: &[u32; 16], block: u32, from: u32, words: &mut [[u32; LANES]; 16]) -> bool {
				const PARTS: usize = LANES / $width;
				let mut most = 0;
				for part in 0..PARTS {
					let counters: [u32; $width] = core::array::from_fn(|lane| block.wrapping_add((part * $width + lane) as u32));
					// SAFETY: an array of as many words as the vector holds; every pattern of bits is a vector.
					let counters: $vector = unsafe { core::mem::transmute(counters) };
					let mut x = [counters; 16];
					for i in 0..16 {
						if i != 12 {
							x[i] = $set(state[i] as i32);
						}
					}
					let first = x;
					for _ in 0..4 {
						quarter!(x, $add, $xor, $turn, 0, 4, 8, 12);
						quarter!(x, $add, $xor, $turn, 1, 5, 9, 13);
						quarter!(x, $add, $xor, $turn, 2, 6, 10, 14);
						quarter!(x, $add, $xor, $turn, 3, 7, 11, 15);
						quarter!(x, $add, $xor, $turn, 0, 5, 10, 15);
						quarter!(x, $add, $xor, $turn, 1, 6, 11, 12);
						quarter!(x, $add, $xor, $turn, 2, 7, 8, 13);
						quarter!(x, $add, $xor, $turn, 3, 4, 9, 14);
					}
					let mut larger = $set(0);
					for i in 0..16 {
						let sum = $add(x[i], first[i]);
						larger = $larger(larger, sum);
						// SAFETY: as above.
						let sum: [u32; $width] = unsafe { core::mem::transmute(sum) };
						words[i][part * $width..(part + 1) * $width].copy_from_slice(&sum);
					}
					// SAFETY: as above.
					let larger: [u32; $width] = unsafe { core::mem::transmute(larger) };
					for word in larger {
						most = if word > most { word } else { most };
					}
				}
				most >= from
			}
		};
	}
	#[target_feature(enable = "avx512f")]
	#[inline]
	fn turn512<const L: i32, const R: i32>(x: __m512i) -> __m512i {
		_mm512_rol_epi32::<L>(x)
	}
	#[target_feature(enable = "avx2")]
	#[inline]
	fn turn256<const L: i32, const R: i32>(x: __m256i) -> __m256i {
		_mm256_or_si256(_mm256_slli_epi32::<L>(x), _mm256_srli_epi32::<R>(x))
	}
	blocks!("avx512f", widest, __m512i, 16, _mm512_set1_epi32, _mm512_add_epi32, _mm512_xor_si512, turn512, _mm512_max_epu32);
	blocks!("avx2", wide, __m256i, 8, _mm256_set1_epi32, _mm256_add_epi32, _mm256_xor_si256, turn256, _mm256_max_epu32);
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn words_should_be_the_same_on_every_processor() {
		let state: [u32; 16] = core::array::from_fn(|i| 0x9E37_79B9u32.wrapping_mul(i as u32 + 1));
		let (mut chosen, mut expected) = ([[0; LANES]; 16], [[0; LANES]; 16]);
		for block in [0, 16, 77, (1 << 20) - 16] {
			for from in [0, 1 << 31, u32::MAX] {
				let found = reaches(&state, block, from, &mut chosen);
				assert_eq!(found, plain(&state, block, from, &mut expected));
				assert_eq!(chosen, expected);
			}
		}
	}

	#[test]
	#[cfg(all(feature = "std", target_arch = "x86_64"))]
	fn words_should_be_the_same_with_half_as_wide_vectors() {
		if !std::is_x86_feature_detected!("avx2") {
			return;
		}
		let state: [u32; 16] = core::array::from_fn(|i| 0x85EB_CA6Bu32.wrapping_mul(i as u32 + 3));
		let (mut half, mut expected) = ([[0; LANES]; 16], [[0; LANES]; 16]);
		for from in [0, 0xFFF0_0000, u32::MAX] {
			// SAFETY: the processor has AVX2; it was asked just now.
			let found = unsafe { vector::wide(&state, 48, from, &mut half) };
			assert_eq!((found, half), (plain(&state, 48, from, &mut expected), expected));
		}
	}
}
