//! The weights of one race in main memory: derived once per Sprint by all threads, then shared by every device.
//!
//! Matrices that read the same activations are kept side by side (a *group*), so that one product serves both: k with
//! v, gate with up. A group lies in memory as its N rows of K, as nibbles (*packed*) or as a byte a weight (*expanded*).

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use pacer_sprint::{Config, Hash, Sprint, MATRICES_PER_LAYER};

use super::{clock::thread_cpu, error::SprintError, host_kernels};

/// Groups of a layer: q, k with v, o, gate with up, down.
pub(super) const GROUPS: usize = 5;
/// Packed bytes that are derived between two looks for user requests, and that share a hash.
const PART_BYTES: usize = 1 << 20;
/// Packed bytes that are derived, hashed and expanded while they are in the cache. Divides a part.
const CHUNK_BYTES: usize = 1 << 15;

/// How weights lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Two a byte, the low nibble first, each 8 too large.
    Packed,
    /// One a byte, as two's complement.
    Expanded,
}

/// Matrices that lie one below the other.
pub(super) struct Group {
    /// N of all of them.
    pub rows: usize,
    /// K.
    pub columns: usize,
    pub bytes: Vec<u8>,
}

/// All weights of a race.
pub struct WeightStore {
    sprint: Sprint,
    form: Form,
    groups: Vec<Group>,
    hash: Hash,
    cost: Cost,
}

/// What deriving took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// From begin to end.
    pub seconds: f64,
    /// Processor time of all threads.
    pub cpu_seconds: f64,
}

impl std::fmt::Debug for WeightStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeightStore").field("sprint", &self.sprint).field("form", &self.form).finish_non_exhaustive()
    }
}

/// Some consecutive weights of one matrix, to be derived.
struct Part<'a> {
    matrix: u32,
    /// Where in the matrix's keystream it begins.
    word: u64,
    out: &'a mut [u8],
}

impl WeightStore {
    /// Derives all weights on `threads` threads. Each of them calls `between` about every two milliseconds.
    ///
    /// # Errors
    /// A shape that breaks a bound, or more memory than there is.
    pub fn derive(
        config: Config,
        seed: Hash,
        form: Form,
        threads: usize,
        between: &(dyn Fn() + Sync),
    ) -> Result<Self, SprintError> {
        let started = Instant::now();
        let sprint = Sprint::new(config, seed)?;
        let mut groups = groups(&config, form)?;
        let (mut hashes, mut cost) = (Vec::new(), Cost::default());
        {
            let parts = Mutex::new(parts(&config, form, &mut groups)?.into_iter().enumerate());
            let work = || -> Result<(Vec<(usize, Hash)>, f64), SprintError> {
                let (mut done, before) = (Vec::new(), thread_cpu());
                loop {
                    // The lock is free again before the part is derived.
                    let part = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((index, part)) = part else { return Ok((done, (thread_cpu() - before).as_secs_f64())) };
                    done.push((index, derive_part(&sprint, form, part)?));
                    between();
                }
            };
            std::thread::scope(|scope| {
                let others: Vec<_> = (1..threads.max(1)).map(|_| scope.spawn(work)).collect();
                let own = work();
                let others = others.into_iter().map(|thread| thread.join().unwrap_or(Err(SprintError::Stopped)));
                for done in std::iter::once(own).chain(others) {
                    let (done, cpu_seconds) = done?;
                    hashes.extend(done);
                    cost.cpu_seconds += cpu_seconds;
                }
                Ok::<_, SprintError>(())
            })?;
        }
        hashes.sort_unstable();
        let mut hasher = blake3::Hasher::new();
        for (_, hash) in &hashes {
            hasher.update(hash);
        }
        cost.seconds = started.elapsed().as_secs_f64();
        Ok(WeightStore { sprint, form, groups, hash: hasher.finalize().into(), cost })
    }

    /// What deriving them took.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// The race's reference.
    pub fn sprint(&self) -> &Sprint {
        &self.sprint
    }

    /// How the weights lie.
    pub fn form(&self) -> Form {
        self.form
    }

    /// BLAKE3 over the BLAKE3 of each MiB (or what is left) of each matrix's packed bytes, in the matrices' order. Says
    /// that two engines derived the same weights, whatever their devices. Not part of the protocol, whose hashes are
    /// BLAKE2b: that takes several times as long as the weights do.
    pub fn hash(&self) -> &Hash {
        &self.hash
    }

    /// The groups, in the matrices' order; the last is the output matrix.
    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }
}

/// Numbers of the matrices of each group.
fn members(config: &Config) -> impl Iterator<Item = std::ops::Range<u32>> + '_ {
    let layers = (0..config.layers).map(|layer| layer * MATRICES_PER_LAYER);
    let groups = layers.flat_map(|m| [m..m + 1, m + 1..m + 3, m + 3..m + 4, m + 4..m + 6, m + 6..m + 7]);
    let output = config.layers * MATRICES_PER_LAYER;
    groups.chain(std::iter::once(output..output + 1))
}

fn bytes_per_packed(form: Form) -> usize {
    match form {
        Form::Packed => 1,
        Form::Expanded => 2,
    }
}

fn shape(config: &Config, matrix: u32) -> Result<pacer_sprint::Matrix, SprintError> {
    Ok(config.matrix(matrix).ok_or(pacer_sprint::Error::Row { matrix, row: 0 })?)
}

/// Groups with their memory, not filled yet.
fn groups(config: &Config, form: Form) -> Result<Vec<Group>, SprintError> {
    let group = |matrices: std::ops::Range<u32>| {
        let mut group = Group { rows: 0, columns: 0, bytes: Vec::new() };
        let mut packed = 0;
        for matrix in matrices {
            let shape = shape(config, matrix)?;
            group.rows += shape.rows as usize;
            group.columns = shape.columns as usize;
            packed += shape.packed_len();
        }
        // Zeroed memory comes from the system untouched, so that the threads that fill it share its page faults.
        group.bytes = vec![0; packed * bytes_per_packed(form)];
        Ok(group)
    };
    members(config).map(group).collect()
}

/// Cuts the memory into parts, in the matrices' order.
fn parts<'a>(config: &Config, form: Form, groups: &'a mut [Group]) -> Result<Vec<Part<'a>>, SprintError> {
    let mut parts = Vec::new();
    let size = bytes_per_packed(form);
    for (group, matrices) in groups.iter_mut().zip(members(config)) {
        let mut rest = group.bytes.as_mut_slice();
        for matrix in matrices {
            let (own, others) = rest.split_at_mut(shape(config, matrix)?.packed_len() * size);
            rest = others;
            let cut = own.chunks_mut(PART_BYTES * size).enumerate();
            parts.extend(cut.map(|(index, out)| Part { matrix, word: (index * PART_BYTES / 4) as u64, out }));
        }
    }
    Ok(parts)
}

/// Fills a part; returns the hash of its packed bytes.
fn derive_part(sprint: &Sprint, form: Form, part: Part<'_>) -> Result<Hash, SprintError> {
    let size = bytes_per_packed(form);
    let mut stream = sprint.weight_stream(part.matrix)?;
    stream.seek(part.word);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = [0; CHUNK_BYTES];
    for out in part.out.chunks_mut(CHUNK_BYTES * size) {
        match form {
            Form::Packed => {
                stream.fill(out);
                hasher.update(out);
            }
            Form::Expanded => {
                let packed = &mut buffer[..out.len() / size];
                stream.fill(packed);
                hasher.update(packed);
                host_kernels::unpack(packed, out);
            }
        }
    }
    Ok(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pacer_sprint::Preset;

    /// Wide enough that a matrix has several parts.
    fn config() -> Config {
        Config { layers: 2, ffn: 16_384, width: 512, ..Preset::Dev.config() }
    }

    #[test]
    fn weights_should_equal_reference_when_they_are_derived_in_parts() {
        let config = config();
        let store = WeightStore::derive(config, [3; 32], Form::Expanded, 3, &|| {}).expect("derived");
        assert_eq!(store.groups().len(), 2 * GROUPS + 1);
        for (group, matrices) in store.groups().iter().zip(members(&config)) {
            let mut rows = group.bytes.chunks_exact(group.columns);
            assert_eq!(rows.len(), group.rows);
            for matrix in matrices {
                let shape = config.matrix(matrix).expect("exists");
                let own: Vec<&[u8]> = rows.by_ref().take(shape.rows as usize).collect();
                for row in [0, 1, shape.rows / 2, shape.rows - 1] {
                    let found: Vec<i8> = own[row as usize].iter().map(|byte| *byte as i8).collect();
                    assert_eq!(found, store.sprint().weight_row(matrix, row).expect("exists"), "{matrix}, {row}");
                }
            }
        }
    }

    #[test]
    fn hash_should_depend_on_the_seed_alone() {
        let hash = |seed, form, threads| {
            *WeightStore::derive(config(), [seed; 32], form, threads, &|| {}).expect("derived").hash()
        };
        assert_eq!(hash(1, Form::Expanded, 1), hash(1, Form::Packed, 3));
        assert_ne!(hash(1, Form::Packed, 1), hash(2, Form::Packed, 1));
    }
}
