//! Where keys and values live: the books ([`block_pool`]) and the tensors ([`kv_cache`]).
//!
//! The books are paged and hold no tensors; they decide who may keep how much. The tensors follow them.

pub mod block_pool;
pub mod kv_cache;
