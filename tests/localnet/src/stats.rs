//! A little statistics for reports.

/// Probability that a chi-square variable with `degrees` degrees of freedom is at least `x`.
pub fn chi_square_p(x: f64, degrees: u32) -> f64 {
	if x <= 0.0 || degrees == 0 {
		return 1.0;
	}
	1.0 - lower_gamma(f64::from(degrees) / 2.0, x / 2.0)
}

/// Regularised lower incomplete gamma function, by its series.
fn lower_gamma(a: f64, x: f64) -> f64 {
	if x > a + 60.0 {
		return 1.0;
	}
	let mut term = 1.0 / a;
	let mut sum = term;
	for n in 1..2_000 {
		term *= x / (a + f64::from(n));
		sum += term;
		if term < sum * 1e-15 {
			break;
		}
	}
	(sum.ln() + a * x.ln() - x - ln_gamma(a)).exp().min(1.0)
}

/// ln Gamma by Lanczos' approximation (g = 7, 9 terms).
fn ln_gamma(x: f64) -> f64 {
	const C: [f64; 9] = [
		0.999_999_999_999_809_9,
		676.520_368_121_885_1,
		-1_259.139_216_722_402_8,
		771.323_428_777_653_1,
		-176.615_029_162_140_6,
		12.507_343_278_686_905,
		-0.138_571_095_265_720_12,
		9.984_369_578_019_572e-6,
		1.505_632_735_149_311_6e-7,
	];
	let x = x - 1.0;
	let t = x + 7.5;
	let sum = C.iter().enumerate().skip(1).fold(C[0], |s, (i, c)| s + c / (x + i as f64));
	0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// Compares counts with expected shares: the chi-square statistic and its p-value.
pub fn chi_square(counts: &[u64], shares: &[f64]) -> (f64, f64) {
	let total: u64 = counts.iter().sum();
	let sum: f64 = shares.iter().sum();
	let statistic = counts
		.iter()
		.zip(shares)
		.filter(|(_, s)| **s > 0.0)
		.map(|(n, s)| {
			let expected = total as f64 * s / sum;
			(*n as f64 - expected).powi(2) / expected
		})
		.sum();
	(statistic, chi_square_p(statistic, counts.len().saturating_sub(1) as u32))
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn chi_square_p_should_match_the_tables() {
		for (x, degrees, p) in [(3.841, 1, 0.05), (7.815, 3, 0.05), (11.345, 3, 0.01), (18.307, 10, 0.05)] {
			assert!((chi_square_p(x, degrees) - p).abs() < 1e-4, "{x} {degrees}");
		}
		assert!(chi_square_p(500.0, 3) < 1e-9);
	}

	#[test]
	fn chi_square_should_accept_what_fits_and_reject_what_does_not() {
		assert!(chi_square(&[100, 200, 300], &[1.0, 2.0, 3.0]).1 > 0.99);
		assert!(chi_square(&[300, 200, 100], &[1.0, 2.0, 3.0]).1 < 1e-6);
	}
}
