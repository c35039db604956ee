//! Child processes that end with their parent.
//!
//! Every child asks the kernel to be killed when its parent dies, is killed when its handle is dropped, and writes its
//! output to a log file whose path appears in errors.

use std::{
	fs::{File, OpenOptions},
	io::{BufRead, BufReader, Seek, SeekFrom},
	os::unix::process::{CommandExt, ExitStatusExt},
	path::{Path, PathBuf},
	process::{Child, Command, Stdio},
	time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context};
use rand::Rng;

/// A running child.
pub struct Process {
	name: String,
	child: Child,
	log: PathBuf,
	/// Where in the log this process began; before it are lines of an earlier one.
	log_start: u64,
}

impl Process {
	/// Starts `command` with output to `log`. `nice` is its scheduling priority: 0 is normal, 19 lowest.
	///
	/// # Errors
	/// If the program cannot be started or the log not be written.
	pub fn spawn(name: &str, mut command: Command, log: &Path, nice: i32) -> anyhow::Result<Self> {
		let file =
			OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("cannot write {}", log.display()))?;
		let log_start = file.metadata()?.len();
		command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
		let parent = std::process::id();
		// SAFETY: between fork and exec only async-signal-safe calls are made.
		unsafe {
			command.pre_exec(move || {
				libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
				// The parent may have died before the line above.
				if libc::getppid() != parent as i32 {
					return Err(std::io::Error::other("the parent is gone"));
				}
				libc::setpriority(libc::PRIO_PROCESS, 0, nice);
				Ok(())
			});
		}
		let program = command.get_program().to_string_lossy().into_owned();
		let child = command.spawn().with_context(|| format!("cannot start {program}; was it built?"))?;
		Ok(Self { name: name.into(), child, log: log.into(), log_start })
	}

	/// Where its output goes.
	pub fn log(&self) -> &Path {
		&self.log
	}

	/// Its process id.
	pub fn id(&self) -> u32 {
		self.child.id()
	}

	/// Whether it still runs.
	pub fn is_alive(&mut self) -> bool {
		matches!(self.child.try_wait(), Ok(None))
	}

	/// Kills it at once, as a power cut would.
	pub fn kill(&mut self) {
		let _ = self.child.kill();
		let _ = self.child.wait();
	}

	/// Makes it stand still, as it is, until [`Process::go_on`].
	pub fn hold(&mut self) {
		self.signal(libc::SIGSTOP);
	}

	/// Undoes [`Process::hold`].
	pub fn go_on(&mut self) {
		self.signal(libc::SIGCONT);
	}

	fn signal(&mut self, signal: libc::c_int) {
		if self.is_alive() {
			// SAFETY: it sends a signal to our own child. That was not waited for yet, so the number is still its own.
			unsafe { libc::kill(self.id() as libc::pid_t, signal) };
		}
	}

	/// Waits until the log holds a line that `find` accepts, and returns what it found.
	///
	/// # Errors
	/// If the process ends or `limit` passes first; the message ends with the last lines of the log.
	pub async fn wait_for_line<T>(&mut self, limit: Duration, find: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
		let start = Instant::now();
		let mut reader = BufReader::new(File::open(&self.log)?);
		reader.seek(SeekFrom::Start(self.log_start))?;
		let mut line = String::new();
		loop {
			line.clear();
			let at = reader.stream_position()?;
			if reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
				if let Some(found) = find(line.trim_end()) {
					return Ok(found);
				}
				continue;
			}
			// A line that is not complete yet is read again.
			reader.seek(SeekFrom::Start(at))?;
			if let Some(status) = self.child.try_wait()? {
				let how = status.signal().map_or_else(|| format!("{status}"), |s| format!("signal {s}"));
				bail!("{} ended ({how}); {}", self.name, self.tail());
			}
			if start.elapsed() > limit {
				bail!("{} did not say what was awaited within {} s; {}", self.name, limit.as_secs(), self.tail());
			}
			tokio::time::sleep(Duration::from_millis(50)).await;
		}
	}

	/// The last lines of the log, for error messages.
	pub fn tail(&self) -> String {
		let text = std::fs::read_to_string(&self.log).unwrap_or_default();
		let lines: Vec<&str> = text.lines().rev().take(15).collect();
		let last: Vec<&str> = lines.into_iter().rev().collect();
		format!("{} ends with:\n{}", self.log.display(), last.join("\n"))
	}
}

impl Drop for Process {
	fn drop(&mut self) {
		self.kill();
	}
}

/// Where ports are looked for: below those that the kernel gives to outgoing connections, so that none of these takes the
/// port of a process while it restarts.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Ports that are tried for each that is needed.
const PORT_TRIES: usize = 100;

/// `n` TCP ports of this machine that are free now, all different. What needs ports of its own asks for all of them at
/// once: a port that was given before may be given again until somebody listens there.
///
/// # Errors
/// If there are too few.
pub fn free_ports(n: usize) -> anyhow::Result<Vec<u16>> {
	let mut rng = rand::thread_rng();
	let tries = std::iter::repeat_with(|| std::net::TcpListener::bind(("127.0.0.1", rng.gen_range(PORTS))));
	// Held until all are found, so that none is found twice.
	let held: Vec<_> = tries.take(n * PORT_TRIES).filter_map(Result::ok).take(n).collect();
	ensure!(held.len() == n, "only {} of {n} ports are free between {} and {}", held.len(), PORTS.start, PORTS.end);
	Ok(held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<std::io::Result<_>>()?)
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn ports_should_all_differ_when_many_are_asked_for_at_once() {
		let mut ports = free_ports(50).unwrap();
		ports.sort_unstable();
		ports.dedup();
		assert_eq!(ports.len(), 50);
		assert!(ports.iter().all(|port| PORTS.contains(port)));
	}
}
