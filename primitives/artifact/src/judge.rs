//! From margins and log-probabilities to a verdict (`design/inference.md`, "Verification").
//!
//! Three statistics, each a mean over positions, carried in millionths: **choice**, margins clipped at [`CHOICE_CLIP`];
//! **distribution**, the centred deviation of the top log-probabilities clipped at [`DISTRIBUTION_CLIP`]; **level**, how
//! far the values lie off as a whole, which centring would hide (a forger who shifts all values alike). Beside them the
//! number of **hard** margins: choices outside K+ and margins at or above the clip.
//!
//! A pair of whole profiles that was never calibrated against each other has gross limits, which only a coarse deviation
//! crosses ([`Thresholds::gross`]). Other such pairs have none; then structure alone decides.

use alloc::vec::Vec;

use crate::{
	position::Position,
	profile::{AttentionPath, DType, DeviceClass, Profile},
	sampler::Margin,
	structure::Fault,
};

/// Margins count this much at most, in logits.
pub const CHOICE_CLIP: f64 = 0.5;
/// Deviations of log-probabilities count this much at most, in nats.
pub const DISTRIBUTION_CLIP: f64 = 0.5;
/// Shifts of the level count this much at most, in nats.
pub const LEVEL_CLIP: f64 = 2.0;
/// Below this many informative tokens only structure and hard margins decide.
pub const MIN_INFORMATIVE: u32 = 16;

/// Limits for answers from some length on. Statistics are millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
	/// Informative tokens from which on these limits hold.
	pub from_tokens: u32,
	/// Largest choice statistic that passes.
	pub choice: u32,
	/// Largest distribution statistic that passes.
	pub distribution: u32,
	/// Largest level statistic that passes.
	pub level: u32,
}

/// How many hard margins pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardLimit {
	/// In every answer.
	pub always: u32,
	/// And one more in so many informative tokens; never one more if zero.
	pub one_in: u32,
}

impl HardLimit {
	/// None at all.
	pub const NONE: Self = Self { always: 0, one_in: 0 };

	/// In an answer with this many informative tokens.
	pub fn at(&self, tokens: u32) -> u32 {
		self.always + tokens.checked_div(self.one_in).unwrap_or(0)
	}
}

/// Limits of a pair of profiles, for every length.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
	/// The honest logit difference that 99.9% of logits stay within.
	pub delta: f64,
	/// Ascending by length.
	pub limits: Vec<Limits>,
	/// Of hard margins.
	pub hard: HardLimit,
	/// Whether the limits are of this pair; else they are gross.
	pub calibrated: bool,
}

impl Thresholds {
	/// First values. `None` for pairs of which nothing is known: quantised weights and external engines, unless both
	/// sides run the same on CPUs.
	///
	/// - **The same profile on CPUs**: estimates with a wide berth. In single precision prefill and decode of one CPU build
	///   differ by 1e-5 to 1e-4 logits, in bfloat16 by some hundredths. The rounding of log-probabilities to 1/1024 alone
	///   makes a distribution statistic of about 250 millionths.
	/// - **f32 against bf16 on CPUs**: three times what was measured on the demo model, which is 13,500 (distribution),
	///   12,600 (level) and 400 (choice) at most, in answers of 16 to 256 tokens (`ml-worker/engine/tests/verify_models.rs`).
	/// - **Any other two whole profiles** ([`Profile::is_whole`]), such as a CPU's and a GPU's: [`Thresholds::gross`].
	///
	/// `pacer-engine calibrate` replaces them.
	pub fn first_values(executor: &Profile, verifier: &Profile) -> Option<Self> {
		let cpus = executor.device == DeviceClass::Cpu && verifier.device == DeviceClass::Cpu;
		let attention = executor.attention == verifier.attention && executor.attention != AttentionPath::External;
		let formats = |profile: &Profile| (profile.weights, profile.kv);
		// One in a thousand logits is further off than `delta`.
		let rare = HardLimit { always: 0, one_in: 512 };
		let close = match (formats(executor), formats(verifier)) {
			_ if !cpus || !attention => None,
			((DType::F32, DType::F32), (DType::F32, DType::F32)) => Some(Self::rows(0.002, [500, 1_500, 4_000], HardLimit::NONE)),
			((DType::Bf16 | DType::Int8 | DType::W8A8, DType::Bf16 | DType::F32), _) if executor == verifier => {
				Some(Self::rows(0.1, [10_000, 30_000, 60_000], rare))
			}
			((DType::F32, DType::F32), (DType::Bf16, DType::Bf16)) | ((DType::Bf16, DType::Bf16), (DType::F32, DType::F32)) => {
				Some(Self::rows(0.1, [10_000, 40_000, 60_000], rare))
			}
			_ => None,
		};
		close.or_else(|| (executor.is_whole() && verifier.is_whole()).then(Self::gross))
	}

	/// Bounds for two whole profiles that were never calibrated, so that to declare one excuses nothing coarse.
	///
	/// These limits stand at seven times what was measured between f32 and bf16 on CPUs, and below what another model,
	/// prompt or seed and four-bit weights make. Eight-bit weights pass them. No GPU was measured yet: that its honest
	/// deviations, which come from the order of additions and from rounding alike, stay below is an estimate.
	pub fn gross() -> Self {
		let rows = Self::rows(0.25, [10_000, 90_000, 140_000], HardLimit { always: 1, one_in: 128 });
		Self { calibrated: false, ..rows }
	}

	/// Limits per length from those at 256 tokens: shorter answers get more room because one unlucky position weighs more.
	fn rows(delta: f64, base: [u32; 3], hard: HardLimit) -> Self {
		let row = |(from_tokens, quarters): (u32, u32)| Limits {
			from_tokens,
			choice: base[0] * quarters / 4,
			distribution: base[1] * quarters / 4,
			level: base[2] * quarters / 4,
		};
		let lengths = [(1, 8), (16, 8), (32, 7), (64, 6), (128, 5), (256, 4), (512, 4)];
		Self { delta, limits: lengths.into_iter().map(row).collect(), hard, calibrated: true }
	}

	/// Limits for an answer with this many informative tokens.
	pub fn at(&self, tokens: u32) -> Option<&Limits> {
		self.limits.iter().rev().find(|l| l.from_tokens <= tokens)
	}
}

/// What a check concludes. Statistics are millionths, as the chain takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
	/// A structural fault: fraud whatever the statistics are (they are zero then).
	pub fault: Option<Fault>,
	/// Mean clipped margin of the choices.
	pub choice: u32,
	/// Mean clipped centred deviation of the distributions.
	pub distribution: u32,
	/// Mean clipped shift of the distributions.
	pub level: u32,
	/// Hard margins.
	pub hard: u32,
	/// Tokens at which more than one token was possible.
	pub informative: u32,
	/// Generated positions.
	pub tokens: u32,
	/// Whether the pair of profiles has thresholds of its own; else [`Thresholds::gross`] or nothing was held against it.
	pub calibrated: bool,
	/// Whether the answer passes.
	pub pass: bool,
}

impl Verdict {
	/// The verdict on an artifact with a structural fault.
	pub fn fraud(fault: Fault) -> Self {
		Self {
			fault: Some(fault),
			choice: 0,
			distribution: 0,
			level: 0,
			hard: 0,
			informative: 0,
			tokens: 0,
			calibrated: false,
			pass: false,
		}
	}
}

/// Evidence gathered position by position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
	tokens: u32,
	informative: u32,
	hard: u32,
	choice: f64,
	distribution: f64,
	level: f64,
}

impl Evidence {
	/// Adds the check of a choice. A single possible token carries no weight, unless another one was chosen.
	pub fn add_choice(&mut self, margin: &Margin) {
		let clipped = if margin.hard { CHOICE_CLIP } else { margin.logits.min(CHOICE_CLIP) };
		self.hard += u32::from(clipped >= CHOICE_CLIP);
		if margin.informative {
			self.informative += 1;
			self.choice += clipped;
		}
	}

	/// Adds a position's log-probabilities; `own` gives ours, in nats, for a token's id.
	pub fn add_distribution(&mut self, position: &Position, own: impl Fn(u32) -> f64) {
		// Ours is held to the range the executor could write down.
		let difference = |c: &crate::Candidate| c.lp.nats() - own(c.id.get()).clamp(-65535.0 / 1024.0, 0.0);
		let differences = position.top().each_ref().map(difference);
		let count = differences.len() as f64;
		let mean = differences.iter().sum::<f64>() / count;
		self.tokens += 1;
		self.distribution += differences.iter().map(|d| (d - mean).abs().min(DISTRIBUTION_CLIP)).sum::<f64>() / count;
		let mut level = mean.abs();
		if position.is_outside() {
			level = level.max(difference(&position.chosen()).abs());
		}
		self.level += level.min(LEVEL_CLIP);
	}

	/// Concludes. Without thresholds nothing but structure decides, and that was found in order.
	pub fn conclude(&self, thresholds: Option<&Thresholds>) -> Verdict {
		let mut verdict = Verdict {
			fault: None,
			choice: millionths(self.choice, self.informative),
			distribution: millionths(self.distribution, self.tokens),
			level: millionths(self.level, self.tokens),
			hard: self.hard,
			informative: self.informative,
			tokens: self.tokens,
			calibrated: thresholds.is_some_and(|t| t.calibrated),
			pass: true,
		};
		let limits = thresholds.and_then(|t| Some((t.at(self.informative.max(1))?, t.hard.at(self.informative))));
		if let Some((limits, hard)) = limits {
			let statistics =
				verdict.choice <= limits.choice && verdict.distribution <= limits.distribution && verdict.level <= limits.level;
			verdict.pass = self.hard <= hard && (self.informative < MIN_INFORMATIVE || statistics);
		}
		verdict
	}
}

/// A mean in millionths, rounded up so that no trace becomes zero.
fn millionths(sum: f64, count: u32) -> u32 {
	if count == 0 {
		return 0;
	}
	// Saturating; NaN, which no finite evidence gives, would be zero, so it is made the largest value.
	let value = libm::ceil(sum / f64::from(count) * 1e6 - 1e-6);
	if value.is_nan() {
		u32::MAX
	} else {
		value as u32
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	fn margin(logits: f64) -> Margin {
		Margin { logits, hard: false, informative: true }
	}

	#[test]
	fn evidence_should_fail_on_any_length_when_a_margin_is_hard() {
		let thresholds = Thresholds::first_values(&Profile::CPU_F32, &Profile::CPU_F32).unwrap();
		for tokens in [1, 15, 100, 5_000] {
			let mut evidence = Evidence::default();
			(0..tokens).for_each(|_| evidence.add_choice(&margin(0.0)));
			assert!(evidence.conclude(Some(&thresholds)).pass);
			evidence.add_choice(&Margin { logits: 0.0, hard: true, informative: true });
			let verdict = evidence.conclude(Some(&thresholds));
			assert!(!verdict.pass && verdict.hard == 1);
			assert!(evidence.conclude(None).pass, "a pair never calibrated is not failed by floats");
		}
	}

	#[test]
	fn evidence_should_wait_for_16_tokens_when_margins_are_soft() {
		let thresholds = Thresholds::first_values(&Profile::CPU_F32, &Profile::CPU_F32).unwrap();
		let mut evidence = Evidence::default();
		for count in 1..40 {
			evidence.add_choice(&margin(0.1));
			assert_eq!(evidence.conclude(Some(&thresholds)).pass, count < 16, "{count}");
		}
		assert_eq!(evidence.conclude(None).choice, 100_000);
	}

	#[test]
	fn thresholds_should_be_gross_or_missing_when_a_pair_was_not_measured() {
		let f32 = Profile::CPU_F32;
		let bf16 = Profile { weights: DType::Bf16, kv: DType::Bf16, ..f32 };
		let f16 = Profile { weights: DType::F16, kv: DType::F16, ..f32 };
		let gpu = |profile| Profile { device: DeviceClass::Cuda { major: 9, minor: 0 }, ..profile };
		let int8 = Profile { weights: DType::Int8, ..f32 };
		let eager = Profile { attention: AttentionPath::Eager, ..f32 };
		let external = Profile { attention: AttentionPath::External, ..f32 };
		for (a, b) in [(f32, f32), (bf16, bf16), (f32, bf16), (bf16, f32), (int8, int8)] {
			assert!(Thresholds::first_values(&a, &b).unwrap().calibrated, "{a:?} {b:?}");
		}
		for (a, b) in [(f32, gpu(f32)), (gpu(bf16), f32), (gpu(bf16), gpu(bf16)), (f16, bf16), (f16, f16), (f32, eager)] {
			assert_eq!(Thresholds::first_values(&a, &b), Some(Thresholds::gross()), "{a:?} {b:?}");
		}
		for (a, b) in [(f32, int8), (int8, f32), (gpu(int8), gpu(int8)), (external, external), (external, f32)] {
			assert_eq!(Thresholds::first_values(&a, &b), None, "{a:?} {b:?}");
		}
	}

	#[test]
	fn hard_margins_should_be_as_rare_in_long_answers_as_in_short_ones() {
		let bf16 = Profile { weights: DType::Bf16, kv: DType::Bf16, ..Profile::CPU_F32 };
		let own = Thresholds::first_values(&bf16, &bf16).unwrap().hard;
		assert_eq!([255, 511, 512, 4_096].map(|tokens| own.at(tokens)), [0, 0, 1, 8]);
		assert_eq!([0, 128, 4_096].map(|tokens| Thresholds::gross().hard.at(tokens)), [1, 2, 33]);
		assert_eq!(Thresholds::first_values(&Profile::CPU_F32, &Profile::CPU_F32).unwrap().hard.at(60_000), 0);
	}

	#[test]
	fn evidence_should_fail_a_pair_never_calibrated_only_when_it_is_coarse() {
		let gross = Thresholds::gross();
		let verdict = |margins: &[f64]| {
			let mut evidence = Evidence::default();
			margins.iter().for_each(|m| evidence.add_choice(&margin(*m)));
			evidence.conclude(Some(&gross))
		};
		assert!(verdict(&[0.005; 300]).pass && !verdict(&[0.005; 300]).calibrated);
		assert!(!verdict(&[0.03; 64]).pass);
		assert!(verdict(&[0.0, 0.6, 0.0]).pass && !verdict(&[0.6, 0.6, 0.0]).pass, "one unlucky choice is forgiven");
	}
}
