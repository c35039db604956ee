//! `pacer-engine sprint contention`: what a race costs those who ask the model, measured on the real server.
//!
//! The server is this program, started as an operator starts it. Requests come one at a time, at moments that have
//! nothing to do with the race's steps, in turns with and without a race.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context};
use clap::Args;
use serde::Serialize;
use serde_json::{json, Value};

/// Arguments of `sprint contention`.
#[derive(Args, Debug)]
pub struct ContentionArgs {
    /// Folder of a checkpoint in Hugging Face layout
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What is raced: dev, bench, whitepaper or wide
    #[arg(long, default_value = "bench")]
    preset: String,
    /// Requests with and without a race, each
    #[arg(long, default_value_t = 200)]
    requests: usize,
    /// Longest pause between two requests, in milliseconds; they are between a tenth of it and all of it
    #[arg(long, default_value_t = 100)]
    pause_ms: u64,
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// CPU threads [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Prints one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Turns with and without a race.
const TURNS: usize = 4;
/// Tokens of an answer: enough that the race really waits.
const ANSWER_TOKENS: u32 = 8;
/// Requests before anything is measured.
const WARM_UP: usize = 10;
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Serialize)]
struct Spread {
    p50: f64,
    p99: f64,
    mean: f64,
    max: f64,
    requests: usize,
}

#[derive(Serialize)]
struct Line {
    preset: String,
    device: String,
    ttft_idle_ms: Spread,
    ttft_racing_ms: Spread,
    /// While requests came: the race waits for them.
    race_nonces_per_s: f64,
    longest_step_ms: f64,
}

/// Ends the server with this program.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(args: &ContentionArgs) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg("--model").arg(&args.model).args(["--port", "0", "--device", &args.device]);
        if let Some(threads) = args.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("the server has no output")?;
        let mut server = Server { child, address: String::new() };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line).context("the server did not start")?;
        server.address = said["listening"].as_str().context("the server does not say where it listens")?.into();
        Ok(server)
    }

    /// Sends a request; returns what the answer is read from, behind its head.
    fn send(&self, method: &str, path: &str, body: &str) -> anyhow::Result<BufReader<TcpStream>> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        let rest = format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all((head + &rest).as_bytes())?;
        let mut answer = BufReader::new(stream);
        let mut line = String::new();
        answer.read_line(&mut line)?;
        ensure!(line.contains(" 200 "), "{path}: {}", line.trim());
        while line != "\r\n" {
            line.clear();
            ensure!(answer.read_line(&mut line)? > 0, "{path}: the answer ended in its head");
        }
        Ok(answer)
    }

    fn status(&self) -> anyhow::Result<Value> {
        let mut text = String::new();
        self.send("GET", "/sprint/status", "")?.read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Milliseconds from sending a question to the first text of its answer; reads the answer to its end.
    fn ttft_ms(&self, number: usize) -> anyhow::Result<f64> {
        let question = format!("Question {number}: what is the capital of France?");
        let body = json!({
            "messages": [{"role": "user", "content": question}], "max_tokens": ANSWER_TOKENS, "stream": true, "temperature": 0,
        });
        let started = Instant::now();
        let answer = self.send("POST", "/v1/chat/completions", &body.to_string())?;
        let mut first = None;
        for line in answer.lines() {
            let line = line?;
            let Some(data) = line.strip_prefix("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok())
            else {
                continue;
            };
            let text = data["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
            if !text.is_empty() && first.is_none() {
                first = Some(started.elapsed());
            }
        }
        Ok(first.context("an answer had no text")?.as_secs_f64() * 1e3)
    }

    fn race(&self, args: &ContentionArgs) -> anyhow::Result<()> {
        let body =
            json!({"preset": args.preset, "seed": "31".repeat(32), "host": "32".repeat(32), "threshold": 1u64 << 40});
        self.send("POST", "/sprint/start", &body.to_string())?;
        let limit = Instant::now() + PATIENCE;
        loop {
            let status = self.status()?;
            match status["state"].as_str() {
                Some("failed") => bail!("the race failed: {}", status["error"]),
                Some("racing")
                    if status["devices"].as_array().is_some_and(|all| all.iter().all(|one| one["tuned"] == true)) =>
                {
                    return Ok(());
                }
                _ => ensure!(Instant::now() < limit, "the race did not begin in time"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Measures and prints.
///
/// # Errors
/// A server that does not start or answer.
pub fn contention(args: &ContentionArgs) -> anyhow::Result<()> {
    let server = Server::start(args)?;
    // A small generator is enough for pauses that do not follow the race's rhythm.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut pause = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let part = args.pause_ms * 100 + state % (args.pause_ms * 900).max(1);
        std::thread::sleep(Duration::from_micros(part));
    };
    for number in 0..WARM_UP {
        server.ttft_ms(number)?;
    }
    let (mut idle, mut racing) = (Vec::new(), Vec::new());
    let (mut tried, mut raced_s) = (0.0, 0.0);
    for turn in 0..2 * TURNS {
        let with_race = turn % 2 == 1;
        if with_race {
            server.race(args)?;
        }
        let (before, began) = (server.status()?["tried"].as_f64().unwrap_or_default(), Instant::now());
        let times = if with_race { &mut racing } else { &mut idle };
        for number in 0..args.requests.div_ceil(TURNS) {
            pause();
            times.push(server.ttft_ms(turn * args.requests + number)?);
        }
        if with_race {
            tried += server.status()?["tried"].as_f64().unwrap_or_default() - before;
            raced_s += began.elapsed().as_secs_f64();
            server.send("POST", "/sprint/stop", "")?;
        }
    }
    let status = server.status()?;
    let steps =
        status["devices"].as_array().into_iter().flatten().filter_map(|device| device["longest_step_ms"].as_f64());
    let line = Line {
        preset: args.preset.clone(),
        device: args.device.clone(),
        ttft_idle_ms: spread(idle),
        ttft_racing_ms: spread(racing),
        race_nonces_per_s: tried / raced_s,
        longest_step_ms: steps.fold(0.0, f64::max),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&line)?)?;
    } else {
        writeln!(out, "{}", serde_json::to_string_pretty(&line)?)?;
    }
    Ok(())
}

/// Median, 99th percentile (nearest rank), mean and largest.
fn spread(mut times: Vec<f64>) -> Spread {
    times.sort_by(f64::total_cmp);
    let rank = |share: f64| {
        times.get(((times.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied().unwrap_or(f64::NAN)
    };
    let (p50, p99, max) = (rank(0.5), rank(0.99), rank(1.0));
    Spread { p50, p99, max, mean: times.iter().sum::<f64>() / times.len() as f64, requests: times.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_should_be_the_nearest_ranks() {
        let found = spread((1..=200).rev().map(f64::from).collect());
        assert_eq!((found.p50, found.p99, found.max, found.mean, found.requests), (100.0, 198.0, 200.0, 100.5, 200));
    }
}
