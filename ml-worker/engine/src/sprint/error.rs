//! What can go wrong in the Sprint.

use thiserror::Error;

/// Why the Sprint could not do what was asked.
#[derive(Debug, Error)]
pub enum SprintError {
    /// The question itself is wrong.
    #[error("{0}")]
    BadInput(String),
    /// The reference refused.
    #[error(transparent)]
    Reference(#[from] pacer_sprint::Error),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// This device's results differ from the reference's: it must not race.
    #[error("this device does not compute the Sprint exactly: {0}")]
    Inexact(String),
    /// The device or the system refused.
    #[error("{0}")]
    Device(String),
    /// More is waiting than the engine takes on.
    #[error("too many verifications are waiting")]
    Busy,
    /// The work was given up before it was done.
    #[error("the engine is shutting down")]
    Stopped,
}
