//! Thousands of rows, of up to 151,936 tokens, against the oracle in numpy (`oracle/sampler.py`), which was written from
//! the design and shares no code with the crate.
//!
//! What may differ: nothing in tokens, ranks, keys, words of noise and the five likeliest ids; the noise by the last bits
//! of two logarithms; a sum of exponentials by [`SUM`], and with it a recorded value where that decides its rounding.
//! Choices that hang on the last bits of a sum or logarithm are not compared: the design does not decide them, so the
//! oracle leaves them out without knowing what the crate says; at most one in a hundred.

mod vectors;

use std::{path::PathBuf, process::Command};

use pacer_artifact::{
	row::{self, RowStats},
	sampler::{
		noise::{gumbel, Noise},
		SampleError, Scratch,
	},
	LogProb, Position, SamplingKey,
};
use vectors::{hex32, lines, mask, row, Fields};

const GOLDEN: &str = include_str!("golden/rows.txt");
/// Largest error of log-sum-exp, as `row::exp` promises of its terms; 7e-7 was measured.
const SUM: f64 = 2e-6;
/// Rows up to this length go through the plain sampler as well, which sorts and scores all of them.
const PLAIN: usize = 5000;

/// What was compared, and what was not as the oracle says.
#[derive(Default)]
struct Report {
	positions: usize,
	large: usize,
	recorded: usize,
	/// Largest error of a log-sum-exp.
	sum: f64,
	wrong: Vec<String>,
}

/// A row with what the oracle says of it.
struct Row {
	logits: Vec<f32>,
	stats: Option<(f64, Vec<u32>)>,
}

impl Row {
	fn new(text: &str, vocab: usize) -> Self {
		let parts: Vec<&str> = text.split(':').collect();
		let ids = |text: &str| text.split('.').map(|id| id.parse().unwrap()).collect();
		let stats = (parts.len() > 2).then(|| (parts[2].parse().unwrap(), ids(parts[3])));
		Self { logits: row(parts[0], parts[1].parse().unwrap(), vocab), stats }
	}

	/// Whether this log-probability of a token may be recorded for the logit.
	fn may_record(&self, lp: LogProb, id: u32) -> bool {
		let sum = self.stats.as_ref().unwrap().0;
		let steps = ((sum - f64::from(self.logits[id as usize])) * 1024.0).min(65_535.0);
		(f64::from(lp.0) - steps).abs() <= 0.5 + SUM * 1024.0
	}
}

impl Report {
	fn holds(&mut self, what: &str, holds: bool, detail: impl FnOnce() -> String) {
		if !holds {
			self.wrong.push(format!("{what}: {}", detail()));
		}
	}

	fn sequence(&mut self, line: &str, scratch: &mut Scratch) {
		let (head, positions) = line.split_once('|').expect("positions");
		let fields = Fields::new(&head);
		let rows: Vec<Row> = fields.list("rows").into_iter().map(|text| Row::new(text, fields.vocab())).collect();
		rows.iter().for_each(|row| self.statistics(row, fields.text("key")));
		let mut sampler = fields.sampler();
		for item in positions.split_whitespace() {
			let (asked, told) = item.split_once('=').unwrap();
			let (index, form) = asked.split_once('/').unwrap_or((asked, ""));
			let (token, rank) = told.split_once(':').unwrap();
			let token: Result<u32, SampleError> = token.parse().map_err(|_| SampleError::NoCandidate);
			let row = &rows[index.parse::<usize>().unwrap()];
			let form = Some(form).filter(|text| !text.is_empty()).map(|text| mask(text, fields.vocab()));
			let place = || format!("{item} as position {} of {}", sampler.output().len(), fields.text("key"));

			let fast = sampler.sample(&row.logits, form.as_ref(), scratch);
			self.holds("token", fast == token, || format!("{fast:?} for {}", place()));
			if row.logits.len() <= PLAIN {
				let plain = sampler.sample_plainly(&row.logits, form.as_ref());
				self.holds("token, plainly", plain == token, || format!("{plain:?} for {}", place()));
			}
			let both = sampler.sample_and_record(&row.logits, form.as_ref(), scratch);
			let picked = both.as_ref().map(|(token, _)| *token).map_err(|error| *error);
			self.holds("token, recorded", picked == token, || format!("{picked:?} for {}", place()));
			if let Ok((_, position)) = both {
				let rank = rank.parse().ok();
				self.holds("record", row.is_recorded_as(position, token, rank), || format!("{position:?} for {}", place()));
				self.recorded += usize::from(rank.is_some());
			}
			self.positions += 1;
			self.large += usize::from(row.logits.len() > 100_000);
			token.into_iter().for_each(|token| sampler.accept(token));
		}
	}

	fn statistics(&mut self, row: &Row, key: &str) {
		let found = row::stats(&row.logits);
		let equal = match (&found, &row.stats) {
			(Some(RowStats { log_sum_exp, top }), Some((sum, ids))) => {
				self.sum = self.sum.max((log_sum_exp - sum).abs());
				(log_sum_exp - sum).abs() <= SUM && top.iter().zip(ids).all(|(a, id)| *a == (*id, row.logits[*id as usize]))
			}
			(None, None) => true,
			_ => false,
		};
		self.holds("statistics", equal, || format!("{found:?}, not {:?}, of {key}", row.stats));
	}
}

impl Row {
	fn is_recorded_as(&self, position: Option<Position>, token: Result<u32, SampleError>, rank: Option<u32>) -> bool {
		let (Some(position), Some((_, ids)), Ok(token), Some(rank)) = (&position, &self.stats, token, rank) else {
			return position.is_none() && rank.is_none();
		};
		let top = position.top().iter().zip(ids);
		position.token() == token
			&& u32::from(position.rank()) == rank.min(255)
			&& row::rank(&self.logits, token) == Some(rank)
			&& self.may_record(position.chosen().lp, token)
			&& top.into_iter().all(|(a, id)| a.id.get() == *id && self.may_record(a.lp, *id))
	}
}

/// Compares all sequences of a text. Fails with the first differences.
fn compare(text: &str) -> Report {
	let mut report = Report::default();
	let mut scratch = Scratch::default();
	lines(text, "sequence").for_each(|line| report.sequence(line, &mut scratch));
	let first = report.wrong.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
	assert!(report.wrong.is_empty(), "{} of {} differ:\n{first}", report.wrong.len(), report.positions);
	let undecided: usize = Fields::new(lines(text, "undecided").next().expect("a number")).number("positions");
	assert!(undecided * 100 <= report.positions, "{undecided} are undecided");
	println!("{} positions, {} recorded, sums within {:.1e}", report.positions, report.recorded, report.sum);
	report
}

fn compare_noise(text: &str) {
	let mut count = 0;
	for fields in lines(text, "noise").map(Fields::new) {
		let word = Noise::new(&SamplingKey(hex32(fields.text("key"))), fields.number("position")).word(fields.number("token"));
		assert_eq!(word, fields.number::<u32>("word"));
		let theirs: f64 = fields.number("gumbel");
		assert!((gumbel(word) - theirs).abs() <= 1e-15 * theirs.abs().max(1.0), "{word}: {} {theirs}", gumbel(word));
		count += 1;
	}
	assert_eq!(count, 40);
}

/// Runs `cases.py` and returns what it prints. Fails where there is no Python with numpy, which `make setup` provides.
fn oracle(arguments: &[&str]) -> String {
	let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
	let home = || variable("HOME").expect("$HOME is set").join(".cache/pacer");
	let installed = variable("PACER_CACHE").unwrap_or_else(home).join("bench/bin/python");
	let has_numpy =
		|python: &PathBuf| Command::new(python).args(["-c", "import numpy"]).output().is_ok_and(|output| output.status.success());
	let pythons = variable("PACER_BENCH_PYTHON").into_iter().chain([installed.clone()]);
	let python = pythons.into_iter().find(has_numpy);
	let python = python.unwrap_or_else(|| panic!("{} has no numpy: run `make setup`", installed.display()));
	let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
	let output = Command::new(python).arg("-B").arg("oracle/cases.py").args(arguments).current_dir(tests).output().unwrap();
	assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
	String::from_utf8(output.stdout).unwrap()
}

#[test]
fn sampler_should_choose_and_record_like_the_oracle_when_rows_are_golden() {
	let report = compare(GOLDEN);
	assert!(report.positions >= 5000 && report.recorded > 4500 && report.large > 200);
	// Every feature decides many of them.
	let bites = Fields::new(lines(GOLDEN, "bites").next().unwrap());
	assert_eq!(bites.names().count(), 14);
	bites.names().for_each(|name| assert!(bites.number::<usize>(name) >= 20, "{name}"));
}

#[test]
fn noise_should_be_that_of_the_oracle() {
	compare_noise(GOLDEN);
}

#[test]
fn sampler_should_choose_and_record_like_the_oracle_when_it_draws_anew() {
	let seed = std::env::var("PROPTEST_RNG_SEED").unwrap_or_else(|_| "1".into());
	let drawn = oracle(&["draw", &seed, "1500"]);
	assert!(compare(&drawn).positions >= 1500);
	compare_noise(&drawn);
}

#[test]
fn oracle_should_answer_as_before_when_golden_cases_are_asked_again() {
	let positions = lines(GOLDEN, "sequence").map(|line| line.split_once('|').unwrap().1.split_whitespace().count());
	let all = 160 + positions.sum::<usize>();
	let printed = oracle(&["check", "golden/sampler.txt", "golden/rows.txt"]);
	assert_eq!(printed, format!("checked {all}\n"));
}
