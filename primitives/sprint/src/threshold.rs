//! How close is close enough: squared cosines in Q32 by hit rate.
//!
//! Outputs are uniform, so the direction of the centred output is (to the accuracy that the hit-rate test shows)
//! uniform on the sphere in `V` dimensions, and its squared cosine with any fixed vector follows Beta(1/2, (V-1)/2).
//! Half of the vectors that are close enough point the other way (`dot < 0`), so one in `n` passes where the upper
//! tail holds `2 / n`. The table is the nearest integer to `2^32 * quantile`, computed with 40 digits by bisection of
//! the regularised incomplete beta function (`tests/oracle/thresholds.py`).

/// (outputs `V`, one in `n`, threshold `C`).
pub const THRESHOLDS: [(u32, u32, u64); 15] = [
	(256, 4, 7_670_677),
	(256, 16, 39_535_115),
	(256, 64, 77_581_568),
	(256, 256, 117_769_048),
	(256, 900, 155_029_188),
	(1024, 4, 1_910_516),
	(1024, 16, 9_874_513),
	(1024, 64, 19_442_515),
	(1024, 256, 29_619_644),
	(1024, 900, 39_121_389),
	(8192, 4, 238_555),
	(8192, 16, 1_233_974),
	(8192, 64, 2_432_021),
	(8192, 256, 3_708_917),
	(8192, 900, 4_903_485),
];

/// The threshold that about one nonce in `n` passes, for `n` of 4, 16, 64, 256 or 900 and the presets' output widths.
pub fn threshold_for_one_in(n: u32, outputs: u32) -> Option<u64> {
	THRESHOLDS.iter().find(|(v, one_in, _)| *v == outputs && *one_in == n).map(|(_, _, c)| *c)
}
