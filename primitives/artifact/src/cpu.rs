//! Compiling a function several times, for what the processor has.

/// A function of the given signature whose body, an `#[inline(always)]` function, is compiled for AVX-512, AVX2 and the
/// plain instruction set, and chosen when it is called. Rust never fuses or reorders floats, so all give the same bits.
macro_rules! by_cpu {
	($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),*) -> $ret:ty = $body:ident;) => {
		$(#[$doc])*
		$vis fn $name($($arg: $type),*) -> $ret {
			#[cfg(all(feature = "std", target_arch = "x86_64"))]
			{
				#[target_feature(enable = "avx512f")]
				fn widest($($arg: $type),*) -> $ret {
					$body($($arg),*)
				}
				#[target_feature(enable = "avx2")]
				fn wide($($arg: $type),*) -> $ret {
					$body($($arg),*)
				}
				if std::is_x86_feature_detected!("avx512f") {
					// SAFETY: the processor has what the function is compiled for; it was asked just now.
					return unsafe { widest($($arg),*) };
				}
				if std::is_x86_feature_detected!("avx2") {
					// SAFETY: as above.
					return unsafe { wide($($arg),*) };
				}
			}
			$body($($arg),*)
		}
	};
}

pub(crate) use by_cpu;
