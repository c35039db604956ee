//! Which files hold a checkpoint's weights.
//!
//! Those that `model.safetensors.index.json` lists; without a list `model.safetensors`; without that every
//! `*.safetensors` file, where names that count (`...-00001-of-00003`) must be complete. So a folder may hold the same
//! weights once more in another layout, as some published ones do.

use super::weights::WeightsError;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The list of files.
const INDEX: &str = "model.safetensors.index.json";
/// The only file of a checkpoint that is not split.
const WHOLE: &str = "model.safetensors";

/// The files, sorted by name.
///
/// # Errors
/// If there is none, or one is missing; it is named.
pub(super) fn safetensors_files(dir: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let index = dir.join(INDEX);
    if index.exists() {
        return listed(dir, &index);
    }
    let whole = dir.join(WHOLE);
    if whole.exists() {
        return Ok(vec![whole]);
    }
    let io = |source| WeightsError::Io { file: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(WeightsError::NoFiles { dir: dir.to_owned() });
    }
    for file in &files {
        if let Some(absent) = first_absent(file) {
            let because = format!("{} is one of a set", file.display());
            return Err(WeightsError::NoShard { file: absent, because });
        }
    }
    Ok(files)
}

fn listed(dir: &Path, index: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let wrong = |reason: String| WeightsError::Index { file: index.to_owned(), reason };
    let bytes = std::fs::read(index).map_err(|source| WeightsError::Io { file: index.to_owned(), source })?;
    let json: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(format!("not JSON: {error}")))?;
    let map = json["weight_map"].as_object().ok_or_else(|| wrong("field `weight_map`: is no object".into()))?;
    let mut files = BTreeSet::new();
    for (tensor, file) in map {
        // A name that leads elsewhere is no name of a file of this checkpoint.
        let name = file.as_str().filter(|name| Path::new(name).file_name().is_some_and(|last| last == *name));
        let name = name.ok_or_else(|| wrong(format!("field `weight_map.{tensor}`: {file} is no file name")))?;
        files.insert(dir.join(name));
    }
    if let Some(file) = files.iter().find(|file| !file.exists()) {
        let because = format!("{INDEX} lists it");
        return Err(WeightsError::NoShard { file: file.clone(), because });
    }
    if files.is_empty() {
        return Err(wrong("field `weight_map`: is empty".into()));
    }
    Ok(files.into_iter().collect())
}

/// The first file of the numbered set to which `file` belongs that is not there.
fn first_absent(file: &Path) -> Option<PathBuf> {
    let stem = file.file_stem()?.to_str()?;
    let (rest, total) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let (digits, total) = (number.len(), total.parse::<u32>().ok()?);
    number.parse::<u32>().ok()?;
    (1..=total)
        .map(|number| file.with_file_name(format!("{name}-{number:0digits$}-of-{total:0digits$}.safetensors")))
        .find(|file| !file.exists())
}
