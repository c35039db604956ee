//! Candle (candle-transformers) in a process of its own: cases come in on stdin, one a line, measurements go out as JSON.
//!
//! Beside `torch_worker.py`, whose words it speaks: `decode:BATCH:TOKENS`, `prefill:TOKENS`, `logits:ID,ID,...`. Candle's own
//! models of Llama and Qwen2 with their own caches, called step by step; every step takes the whole batch. Their greedy choice
//! is made here, as candle's `argmax` uses one thread and takes longer than a whole step of a large batch.
//!
//!     candle-worker --model FOLDER --dtype f32|f16|bf16
//!
//! Threads are what RAYON_NUM_THREADS says.
mod model;

use candle_core::{DType, Device, Tensor};
use model::{Model, Result};
use rand::{rngs::SmallRng, Rng as _, SeedableRng};
use serde_json::{json, Value};
use std::io::{BufRead, Write};
use std::time::Instant;

const SHORT_PROMPT: usize = 32;

struct Bench {
	model: Model,
	draw: SmallRng,
}

impl Bench {
	fn prompts(&mut self, batch: usize, tokens: usize) -> Result<Tensor> {
		let vocab = self.model.vocab();
		let ids: Vec<u32> = (0..batch * tokens).map(|_| self.draw.random_range(0..vocab)).collect();
		Ok(Tensor::from_vec(ids, (batch, tokens), &Device::Cpu)?)
	}

	fn decode(&mut self, batch: usize, tokens: usize) -> Result<Value> {
		let prompts = self.prompts(batch, SHORT_PROMPT)?;
		self.model.clear();
		let mut ids = greedy(&self.model.forward(&prompts, 0)?)?;
		let began = Instant::now();
		for step in 0..tokens - 1 {
			ids = greedy(&self.model.forward(&ids, SHORT_PROMPT + step)?)?;
		}
		let (seconds, counted) = (began.elapsed().as_secs_f64(), batch * (tokens - 1));
		Ok(json!({"tokens_per_s": counted as f64 / seconds, "tokens": counted, "seconds": seconds}))
	}

	fn prefill(&mut self, tokens: usize) -> Result<Value> {
		let prompt = self.prompts(1, tokens)?;
		self.model.clear();
		let began = Instant::now();
		greedy(&self.model.forward(&prompt, 0)?)?;
		let seconds = began.elapsed().as_secs_f64();
		Ok(json!({"tokens_per_s": tokens as f64 / seconds, "tokens": tokens, "seconds": seconds}))
	}

	/// What the model makes of these tokens, all but the last at once and the last through the cache.
	fn logits(&mut self, ids: &[u32]) -> Result<Value> {
		let (last, first) = ids.split_last().ok_or("no tokens")?;
		let at = first.len();
		self.model.clear();
		self.model.forward(&Tensor::from_slice(first, (1, at), &Device::Cpu)?, 0)?;
		let row = self.model.forward(&Tensor::from_slice(&[*last], (1, 1), &Device::Cpu)?, at)?;
		let row = row.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
		let some: Vec<f32> = row.iter().step_by(row.len() / 256).copied().collect();
		Ok(json!({ "logits": some }))
	}

	fn measure(&mut self, case: &str) -> Result<Value> {
		let (kind, numbers) = case.split_once(':').ok_or("a case without numbers")?;
		let numbers = numbers.split([':', ',']).map(str::parse).collect::<std::result::Result<Vec<u32>, _>>()?;
		match (kind, numbers.as_slice()) {
			("decode", &[batch, tokens]) if batch > 0 && tokens > 1 => self.decode(batch as usize, tokens as usize),
			("prefill", &[tokens]) if tokens > 0 => self.prefill(tokens as usize),
			("logits", ids) if ids.len() > 1 => self.logits(ids),
			_ => Err(format!("no such case: {case}").into()),
		}
	}
}

/// The likeliest token of each row, `[rows, 1]`.
fn greedy(logits: &Tensor) -> Result<Tensor> {
	let logits = logits.to_dtype(DType::F32)?;
	let vocab = logits.dim(candle_core::D::Minus1)?;
	let all = logits.flatten_all()?.to_vec1::<f32>()?;
	let ids: Vec<u32> = all
		.chunks(vocab)
		.map(|row| {
			let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
			row.iter().position(|value| *value == largest).unwrap_or_default() as u32
		})
		.collect();
	let rows = ids.len();
	Ok(Tensor::from_vec(ids, (rows, 1), &Device::Cpu)?)
}

fn flag(name: &str) -> Result<String> {
	let mut words = std::env::args().skip_while(|word| word != name);
	Ok(words.nth(1).ok_or_else(|| format!("{name} is missing"))?)
}

fn main() -> Result<()> {
	let dtype = match flag("--dtype")?.as_str() {
		"f32" => DType::F32,
		"f16" => DType::F16,
		"bf16" => DType::BF16,
		other => return Err(format!("no such dtype: {other}").into()),
	};
	let mut bench = Bench { model: Model::load(flag("--model")?.as_ref(), dtype)?, draw: SmallRng::seed_from_u64(20261121) };
	bench.decode(2, 4)?;
	let mut out = std::io::stdout();
	writeln!(out, "{}", json!({"ready": true, "version": model::VERSION}))?;
	for line in std::io::stdin().lock().lines() {
		let case = line?;
		let mut found = bench.measure(case.trim()).unwrap_or_else(|error| json!({"error": error.to_string()}));
		found["case"] = json!(case.trim());
		writeln!(out, "{found}")?;
	}
	Ok(())
}
