//! Where keys and values live: the books ([`block_pool`], with names of cached text from [`prefix`]), and the tensors
//! ([`kv_cache`]) that follow them, written and read through a [`batch`].

pub mod batch;
pub mod block_pool;
pub mod kv_cache;
pub mod prefix;

pub use batch::Batch;
pub use kv_cache::KvCache;

/// Tokens in a block, unless something else is asked for.
pub const BLOCK_TOKENS: usize = 16;
