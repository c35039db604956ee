//! Where a trained model lives: a manifest that says how it was made, a lock against two trainings at once, and a
//! replacement of the folder that leaves either the old model or the new one, never half of one.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use blake2::{digest::consts::U32, Blake2b, Digest};
use serde::{Deserialize, Serialize};

use super::{corpus::Corpus, layout, Settings, TrainError};

/// Name of the manifest in a model's folder.
pub const MANIFEST: &str = "pacer-demo.json";

/// Raised when a change of this code makes other models from the same texts and settings.
const RECIPE: u32 = 1;

/// How a model was made and what it can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the training code.
    pub recipe: u32,
    /// BLAKE2b-256 of the corpus files, hex.
    pub corpus: String,
    /// Preset, sizes, steps and seed.
    pub settings: Settings,
    /// Share of exact answers to held-out phrasings.
    pub accuracy: f64,
    /// Mean loss of the last tenth of the steps.
    pub loss: f64,
    /// Wall time of training, in seconds.
    pub seconds: f64,
    /// BLAKE2b-256 of each file, hex.
    pub files: Vec<(String, String)>,
}

impl Manifest {
    /// The manifest of the model just written to `dir`.
    ///
    /// # Errors
    /// A file of the layout that cannot be read.
    pub fn of(dir: &Path, settings: &Settings, accuracy: f64, loss: f64, seconds: f64) -> Result<Self, TrainError> {
        let files = layout::FILES.iter().map(|name| Ok((name.to_string(), hash_file(&dir.join(name))?)));
        let files = files.collect::<Result<_, TrainError>>()?;
        Ok(Self { recipe: RECIPE, corpus: corpus_hash(), settings: settings.clone(), accuracy, loss, seconds, files })
    }

    /// Writes the manifest, as the last file of a folder.
    ///
    /// # Errors
    /// Input and output.
    pub fn write(&self, dir: &Path) -> Result<(), TrainError> {
        let path = dir.join(MANIFEST);
        let text = serde_json::to_string_pretty(self)?;
        fs::write(&path, text + "\n").and_then(|()| File::open(&path)?.sync_all()).map_err(TrainError::io(&path))
    }

    /// The manifest in `dir` if it says that this very code would make the same model again and all files are whole.
    pub fn current(dir: &Path, settings: &Settings) -> Option<Self> {
        let manifest: Self = serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
        let same = manifest.recipe == RECIPE && manifest.corpus == corpus_hash() && manifest.settings == *settings;
        let whole = layout::FILES.iter().all(|name| {
            let noted = manifest.files.iter().find(|(file, _)| file == name);
            noted.is_some_and(|(_, hash)| hash_file(&dir.join(name)).is_ok_and(|found| found == *hash))
        });
        (same && whole).then_some(manifest)
    }
}

fn corpus_hash() -> String {
    let mut hasher = Blake2b::<U32>::new();
    for source in Corpus::sources() {
        hasher.update((source.len() as u64).to_le_bytes());
        hasher.update(source);
    }
    hex::encode(hasher.finalize())
}

fn hash_file(path: &Path) -> Result<String, TrainError> {
    let bytes = fs::read(path).map_err(TrainError::io(path))?;
    Ok(hex::encode(Blake2b::<U32>::digest(bytes)))
}

/// The folder of a model, locked for one process.
#[derive(Debug)]
pub struct Slot {
    dir: PathBuf,
    /// Unlocked by the system when dropped, even after a crash.
    _lock: File,
}

impl Slot {
    /// Waits until no other process trains into `dir`.
    ///
    /// # Errors
    /// [`TrainError::Foreign`] if `dir` holds something that is not a demo model; input and output.
    pub fn open(dir: &Path) -> Result<Self, TrainError> {
        let dir = std::path::absolute(dir).map_err(TrainError::io(dir))?;
        let parent = dir.parent().ok_or_else(|| TrainError::Foreign(dir.clone()))?;
        fs::create_dir_all(parent).map_err(TrainError::io(parent))?;
        let slot_path = sibling(&dir, "lock");
        let lock = File::create(&slot_path).map_err(TrainError::io(&slot_path))?;
        if lock.try_lock().is_err() {
            eprintln!("another process trains into {}; waiting for it", dir.display());
            lock.lock().map_err(TrainError::io(&slot_path))?;
        }
        let is_foreign = !dir.join(MANIFEST).exists()
            && match fs::read_dir(&dir) {
                Ok(mut entries) => entries.next().is_some(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
                Err(error) => return Err(TrainError::io(&dir)(error)),
            };
        if is_foreign {
            return Err(TrainError::Foreign(dir));
        }
        Ok(Self { dir, _lock: lock })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// An empty folder beside the final one; what a crashed training left there is removed.
    ///
    /// # Errors
    /// Input and output.
    pub fn scratch(&self) -> Result<PathBuf, TrainError> {
        let scratch = sibling(&self.dir, "new");
        remove(&scratch)?;
        fs::create_dir(&scratch).map_err(TrainError::io(&scratch))?;
        Ok(scratch)
    }

    /// Puts the finished `scratch` folder in place of the old model.
    ///
    /// # Errors
    /// Input and output.
    pub fn replace(&self, scratch: &Path) -> Result<(), TrainError> {
        let old = sibling(&self.dir, "old");
        remove(&old)?;
        // Two renames: a crash between them leaves no folder, and the next run trains again.
        if self.dir.exists() {
            fs::rename(&self.dir, &old).map_err(TrainError::io(&self.dir))?;
        }
        fs::rename(scratch, &self.dir).map_err(TrainError::io(scratch))?;
        remove(&old)
    }
}

/// `.name.suffix` beside `dir`.
fn sibling(dir: &Path, suffix: &str) -> PathBuf {
    let name = dir.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy());
    dir.with_file_name(format!(".{name}.{suffix}"))
}

fn remove(dir: &Path) -> Result<(), TrainError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(TrainError::io(dir)(error)),
        _ => Ok(()),
    }
}
