//! Weights of a checkpoint: safetensors files ([`super::shards`]), mapped into memory, looked up by tensor name.

use super::shards::safetensors_files;
use blake2::{digest::consts::U32, Blake2b, Digest};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, TchError, Tensor};

/// Why weights cannot be read. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file is missing or unreadable.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is damaged.
    #[error("{}: {source}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// What the parser said.
        source: safetensors::SafeTensorError,
    },
    /// There are no weights.
    #[error("{}: no *.safetensors file here", dir.display())]
    NoFiles {
        /// The folder.
        dir: PathBuf,
    },
    /// A part of the checkpoint is missing.
    #[error("{}: missing, although {because}", file.display())]
    NoShard {
        /// The file.
        file: PathBuf,
        /// How it is known that it should be there.
        because: String,
    },
    /// The list of files is not what it should be.
    #[error("{}: {reason}", file.display())]
    Index {
        /// The list.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor is missing.
    #[error("{}: no tensor `{name}`", dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor is not what the configuration says.
    #[error("{}: tensor `{name}` {reason}", file.display())]
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The engine asked for a tensor that this shape of model does not have: a fault of the engine.
    #[error("`{name}` is no tensor of this model")]
    Unknown {
        /// The tensor.
        name: String,
    },
    /// libtorch refused.
    #[error("libtorch, at tensor `{name}`: {source}")]
    Torch {
        /// The tensor.
        name: String,
        /// What it said.
        source: TchError,
    },
}

/// Element types of tensors that are used as they are.
const FLOATS: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

/// What is known of a tensor without reading it.
#[derive(Clone, Debug)]
pub struct TensorEntry {
    file: usize,
    /// Element type in the file.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    bytes: Range<usize>,
}

/// All tensors of a checkpoint, by name.
pub struct Weights {
    dir: PathBuf,
    files: Vec<(PathBuf, Mmap)>,
    index: HashMap<String, TensorEntry>,
}

fn map(file: &Path) -> Result<Mmap, WeightsError> {
    let io = |source| WeightsError::Io { file: file.to_owned(), source };
    let handle = File::open(file).map_err(io)?;
    // SAFETY: the usual caveat of mapped files: a checkpoint must not be changed while it is read.
    unsafe { Mmap::map(&handle) }.map_err(io)
}

/// Lets go of pages that were read: they would count as this process's memory, beside the copy.
fn forget(mapped: &Mmap, bytes: &Range<usize>) {
    // SAFETY: pages of a read-only mapping of a file are read again if they are wanted again. The range was checked
    // against the mapping's length when the file was opened. Whether it helps is all that can go wrong.
    let _ = unsafe { mapped.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, bytes.start, bytes.len()) };
}

/// What identifies a model's weights on chain and in artifacts: the BLAKE2b-256 of its safetensors file (as `b2sum -l
/// 256` prints it); for several files the BLAKE2b-256 over, in order of name, the name's length (u32 LE), the
/// name, and the BLAKE2b-256 of the content.
pub fn weights_hash(dir: &Path) -> Result<[u8; 32], WeightsError> {
    let files = safetensors_files(dir)?;
    let hash = |file: &Path| Ok::<_, WeightsError>(Blake2b::<U32>::digest(&map(file)?[..]));
    if let [only] = files.as_slice() {
        return Ok(hash(only)?.into());
    }
    let mut whole = Blake2b::<U32>::new();
    for file in &files {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        whole.update((name.len() as u32).to_le_bytes());
        whole.update(name.as_bytes());
        whole.update(hash(file)?);
    }
    Ok(whole.finalize().into())
}

impl Weights {
    /// Maps the checkpoint's safetensors files in `dir`.
    pub fn open(dir: &Path) -> Result<Self, WeightsError> {
        Self::of(dir, safetensors_files(dir)?)
    }

    /// Maps these files, which belong to `dir`.
    ///
    /// # Errors
    /// If one is missing or damaged, or two hold the same tensor.
    pub fn of(dir: &Path, list: Vec<PathBuf>) -> Result<Self, WeightsError> {
        let mut files = Vec::new();
        let mut index = HashMap::new();
        for (number, file) in list.into_iter().enumerate() {
            let mapped = map(&file)?;
            let format = |source| WeightsError::Format { file: file.clone(), source };
            let (header, metadata) = SafeTensors::read_metadata(&mapped).map_err(format)?;
            let start = header + 8;
            for (name, info) in metadata.tensors() {
                let bytes = start + info.data_offsets.0..start + info.data_offsets.1;
                if bytes.end > mapped.len() {
                    let reason = "lies beyond the end of the file".into();
                    return Err(WeightsError::Tensor { file, name, reason });
                }
                let entry = TensorEntry { file: number, dtype: info.dtype, shape: info.shape.clone(), bytes };
                if let Some(other) = index.insert(name.clone(), entry) {
                    let other: &(PathBuf, Mmap) = &files[other.file];
                    let reason = format!("is in {} too", other.0.display());
                    return Err(WeightsError::Tensor { file, name, reason });
                }
            }
            files.push((file, mapped));
        }
        Ok(Self { dir: dir.to_owned(), files, index })
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Names, types and shapes of all tensors.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &TensorEntry)> {
        self.index.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(file, _)| file.as_path())
    }

    /// Bytes of all files.
    pub fn file_bytes(&self) -> usize {
        self.files.iter().map(|(_, mapped)| mapped.len()).sum()
    }

    /// A tensor's element type.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.index.get(name).map(|entry| entry.dtype)
    }

    /// A tensor's shape.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.index.get(name).map(|entry| &entry.shape[..])
    }

    /// The error that the tensor `name` is wrong because of `reason`.
    pub fn wrong(&self, name: &str, reason: impl Into<String>) -> WeightsError {
        let file = self.index.get(name).map_or(&self.dir, |entry| &self.files[entry.file].0).clone();
        WeightsError::Tensor { file, name: name.to_owned(), reason: reason.into() }
    }

    /// Checks that a tensor is there, is made of floats and has the expected shape.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<(), WeightsError> {
        self.check_type(name, shape, &FLOATS)
    }

    /// Checks that a tensor is there and has the expected shape and one of these element types.
    pub fn check_type(&self, name: &str, shape: &[usize], types: &[Dtype]) -> Result<(), WeightsError> {
        let found = self.entry(name, shape)?.dtype;
        if !types.contains(&found) {
            let types: Vec<_> = types.iter().map(|known| format!("{known:?}")).collect();
            let reason = format!("has element type {found:?}; supported here: {}", types.join(", "));
            return Err(self.wrong(name, reason));
        }
        Ok(())
    }

    /// A tensor's bytes, as they are in the file.
    pub fn bytes(&self, name: &str) -> Result<&[u8], WeightsError> {
        let missing = || WeightsError::Missing { dir: self.dir.clone(), name: name.to_owned() };
        let entry = self.index.get(name).ok_or_else(missing)?;
        Ok(&self.files[entry.file].1[entry.bytes.clone()])
    }

    /// Lets go of the memory of bytes that were read.
    pub fn forget(&self, name: &str) {
        if let Some(entry) = self.index.get(name) {
            forget(&self.files[entry.file].1, &entry.bytes);
        }
    }

    fn entry(&self, name: &str, shape: &[usize]) -> Result<&TensorEntry, WeightsError> {
        let entry = self
            .index
            .get(name)
            .ok_or_else(|| WeightsError::Missing { dir: self.dir.clone(), name: name.to_owned() })?;
        if entry.shape != shape {
            let reason = format!("has shape {:?}, the configuration asks for {shape:?}", entry.shape);
            return Err(self.wrong(name, reason));
        }
        Ok(entry)
    }

    /// Reads one tensor into memory of its own, as `kind` on `device`, if it has the expected shape.
    pub fn get(&self, name: &str, shape: &[usize], kind: Kind, device: Device) -> Result<Tensor, WeightsError> {
        self.check(name, shape)?;
        let entry = self.entry(name, shape)?;
        let mapped = &self.files[entry.file].1;
        let stored = match entry.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            _ => Kind::BFloat16,
        };
        let size: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
        let tensor = Tensor::f_from_data_size(&mapped[entry.bytes.clone()], &size, stored)
            .and_then(|tensor| tensor.f_to_device(device))
            .and_then(|tensor| tensor.f_to_kind(kind))
            .map_err(|source| WeightsError::Torch { name: name.to_owned(), source })?;
        forget(mapped, &entry.bytes);
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_should_name_file_and_tensor_when_they_do_not_fit() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Weights::open(dir.path()), Err(WeightsError::NoFiles { .. })));
        let tensor = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).reshape([2, 2]);
        Tensor::write_safetensors(&[("w", &tensor)], dir.path().join("model.safetensors")).unwrap();
        let weights = Weights::open(dir.path()).unwrap();
        let read = weights.get("w", &[2, 2], Kind::Float, Device::Cpu).unwrap();
        assert_eq!(read, tensor);
        let shape = weights.get("w", &[4, 1], Kind::Float, Device::Cpu).unwrap_err().to_string();
        assert!(shape.contains("model.safetensors") && shape.contains("`w`"), "{shape}");
        assert!(weights.get("x", &[1], Kind::Float, Device::Cpu).unwrap_err().to_string().contains("`x`"));
        std::fs::write(dir.path().join("model.safetensors"), b"not this").unwrap();
        assert!(matches!(Weights::open(dir.path()), Err(WeightsError::Format { .. })));
    }

    #[test]
    fn weights_should_name_the_file_when_it_is_cut_short_or_listed_and_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let tensor = Tensor::from_slice(&[1f32; 64]);
        Tensor::write_safetensors(&[("w", &tensor)], path("model.safetensors")).unwrap();
        let whole = std::fs::read(path("model.safetensors")).unwrap();
        for length in [whole.len() - 1, whole.len() / 2, 9, 4, 0] {
            std::fs::write(path("model.safetensors"), &whole[..length]).unwrap();
            let error = Weights::open(dir.path()).err().expect("cut short").to_string();
            assert!(error.contains("model.safetensors: ") && !error.contains('\n'), "{length}: {error}");
        }
        let error = |index: &str| {
            std::fs::write(path("model.safetensors.index.json"), index).unwrap();
            Weights::open(dir.path()).err().expect("a broken index").to_string()
        };
        assert!(error("{").contains("index.json: not JSON"));
        assert!(error("{}").contains("`weight_map`"));
        assert!(error(r#"{"weight_map": {"w": "../w.safetensors"}}"#).contains("`weight_map.w`"));
        let missing = error(r#"{"weight_map": {"w": "b.safetensors"}}"#);
        assert!(missing.contains("b.safetensors: missing"), "{missing}");
        // What the list does not name is not looked at.
        std::fs::write(path("b.safetensors"), &whole).unwrap();
        assert!(Weights::open(dir.path()).unwrap().has("w"));
    }

    #[test]
    fn weights_should_be_refused_when_two_files_hold_the_same_tensor() {
        let dir = tempfile::tempdir().unwrap();
        let tensor = Tensor::from_slice(&[1f32]);
        for name in ["a.safetensors", "b.safetensors"] {
            Tensor::write_safetensors(&[("w", &tensor)], dir.path().join(name)).unwrap();
        }
        let error = Weights::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("b.safetensors: tensor `w` is in ") && error.contains("a.safetensors too"), "{error}");
    }

    #[test]
    fn weights_hash_should_be_that_of_the_file_when_there_is_one_and_bind_names_when_there_are_more() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| std::fs::write(dir.path().join(name), content).unwrap();
        write("a.safetensors", b"one");
        let plain: [u8; 32] = Blake2b::<U32>::digest(b"one").into();
        assert_eq!(weights_hash(dir.path()).unwrap(), plain);
        write("b.safetensors", b"two");
        let two = weights_hash(dir.path()).unwrap();
        std::fs::rename(dir.path().join("b.safetensors"), dir.path().join("c.safetensors")).unwrap();
        let renamed = weights_hash(dir.path()).unwrap();
        assert!(plain != two && two != renamed);
    }
}
