//! Reading fields of a JSON file so that every complaint names file and field.

use super::ConfigError;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The fields of one JSON object in a file, or of an object within it.
pub struct Fields {
    file: PathBuf,
    /// Names of the objects around this one, each with a dot behind it.
    prefix: String,
    object: serde_json::Map<String, Value>,
}

/// Reads a JSON file.
pub(crate) fn read_json(file: &Path) -> Result<Value, ConfigError> {
    let bytes = std::fs::read(file).map_err(|source| ConfigError::Io { file: file.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| ConfigError::Json { file: file.to_owned(), source })
}

impl Fields {
    /// The fields of the object that is the whole of `file`.
    ///
    /// # Errors
    /// If the file is unreadable, not JSON, or not an object.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        match read_json(file)? {
            Value::Object(object) => Ok(Self { file: file.to_owned(), prefix: String::new(), object }),
            _ => Err(ConfigError::NotAnObject { file: file.to_owned() }),
        }
    }

    /// The error that `field` is wrong because of `reason`.
    pub fn wrong(&self, field: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::Field { file: self.file.clone(), field: format!("{}{field}", self.prefix), reason: reason.into() }
    }

    /// A field's value; `null` counts as absent.
    pub fn value(&self, field: &str) -> Option<&Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    /// Whether the field is there, be it `null`.
    pub fn has(&self, field: &str) -> bool {
        self.object.contains_key(field)
    }

    fn typed<'a, T>(
        &'a self,
        field: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.value(field) {
            None => Ok(None),
            Some(value) => {
                read(value).map(Some).ok_or_else(|| self.wrong(field, format!("{} is not {what}", short(value))))
            }
        }
    }

    /// A whole number that counts something.
    pub fn count(&self, field: &str) -> Result<Option<usize>, ConfigError> {
        self.typed(field, "a whole number that is not negative", |value| value.as_u64().map(|n| n as usize))
    }

    /// A count that must be there, and in 1 ..= 2^24, so that products of a few of them fit.
    pub fn size(&self, field: &str) -> Result<usize, ConfigError> {
        let value = self.count(field)?.ok_or_else(|| self.wrong(field, "is missing"))?;
        self.in_range(field, value)
    }

    /// Checks that `value`, which stands for `field`, is in 1 ..= 2^24.
    pub fn in_range(&self, field: &str, value: usize) -> Result<usize, ConfigError> {
        if value == 0 || value > 1 << 24 {
            return Err(self.wrong(field, format!("{value} is out of range")));
        }
        Ok(value)
    }

    /// A number.
    pub fn number(&self, field: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(field, "a finite number", |value| value.as_f64().filter(|n| n.is_finite()))
    }

    /// A number above zero that must be there.
    pub fn positive(&self, field: &str) -> Result<f64, ConfigError> {
        let value = self.number(field)?.ok_or_else(|| self.wrong(field, "is missing"))?;
        if value <= 0.0 {
            return Err(self.wrong(field, format!("{value} must be above zero")));
        }
        Ok(value)
    }

    /// A truth value; absent is false.
    pub fn flag(&self, field: &str) -> Result<bool, ConfigError> {
        Ok(self.typed(field, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// A truth value.
    pub fn truth(&self, field: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(field, "true or false", Value::as_bool)
    }

    /// A text.
    pub fn text(&self, field: &str) -> Result<Option<&str>, ConfigError> {
        self.typed(field, "a text", Value::as_str)
    }

    /// A list of texts; absent is empty.
    pub fn texts(&self, field: &str) -> Result<Vec<&str>, ConfigError> {
        let read = |value| Value::as_array(value)?.iter().map(Value::as_str).collect();
        Ok(self.typed(field, "a list of texts", read)?.unwrap_or_default())
    }

    /// A list of counts; absent is empty, one number is a list of one.
    pub fn counts(&self, field: &str) -> Result<Vec<usize>, ConfigError> {
        let one = |value: &Value| value.as_u64().map(|n| n as usize);
        let read = |value: &Value| match value.as_array() {
            Some(list) => list.iter().map(one).collect(),
            None => one(value).map(|n| vec![n]),
        };
        Ok(self.typed(field, "a whole number or a list of them", read)?.unwrap_or_default())
    }

    /// Token ids; absent is empty, one number is a list of one.
    pub fn token_ids(&self, field: &str) -> Result<Vec<u32>, ConfigError> {
        let ids = self.counts(field)?;
        ids.into_iter()
            .map(|id| u32::try_from(id).map_err(|_| self.wrong(field, format!("{id} is no token id"))))
            .collect()
    }

    /// An object within this one.
    pub fn inner(&self, field: &str) -> Result<Option<Fields>, ConfigError> {
        let object = self.typed(field, "an object", Value::as_object)?;
        Ok(object.map(|object| Fields {
            file: self.file.clone(),
            prefix: format!("{}{field}.", self.prefix),
            object: object.clone(),
        }))
    }

    /// Names of all fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.object.keys().map(String::as_str)
    }
}

/// A value for a message.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
