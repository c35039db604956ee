//! Names of cached text: a block's hash covers its tokens and everything before them, and whose cache it is in.
//!
//! Blocks of different [`CacheSalt`]s never meet: who asks cannot learn by its speed what others asked.

/// Whose cache a sequence uses, and for which weights (an adapter changes every key and value).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CacheSalt([u8; 32]);

impl CacheSalt {
    /// The salt of what `tenant` asks of the model with `adapter` (empty: the model as it is).
    pub fn new(tenant: &Tenant, adapter: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("pacer engine 2026 prefix cache salt");
        hasher.update(&tenant.0).update(adapter.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

/// Who pays for a request: a Developer, or the holder of an API key. Cached text is shared, and turns are shared out,
/// by it. The default stands for an engine that does not tell its clients apart.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant([u8; 32]);

impl Tenant {
    /// The tenant known by these bytes (an account, an API key); they are not kept.
    pub fn of(known_by: &[u8]) -> Self {
        Self(blake3::derive_key("pacer engine 2026 tenant", known_by))
    }

    /// Somebody for whom this tenant asks. Another tenant that names the same gets another.
    pub fn within(&self, known_by: &[u8]) -> Self {
        Self(*blake3::keyed_hash(&self.0, known_by).as_bytes())
    }
}

impl std::fmt::Debug for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tenant({})", hex::encode(&self.0[..4]))
    }
}

/// Hash of a text that ends at the end of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TextHash([u8; 32]);

impl TextHash {
    /// The empty text.
    pub fn empty(salt: &CacheSalt) -> Self {
        Self(salt.0)
    }

    /// This text and one more block of tokens.
    pub fn then(&self, tokens: &[u32]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_should_have_another_name_when_tenant_adapter_or_any_token_differs() {
        let name = |tenant: &[u8], adapter: &str, tokens: &[u32]| {
            tokens
                .chunks(2)
                .fold(TextHash::empty(&CacheSalt::new(&Tenant::of(tenant), adapter)), |hash, block| hash.then(block))
        };
        let base = name(b"alice", "", &[1, 2, 3, 4]);
        assert_eq!(base, name(b"alice", "", &[1, 2, 3, 4]));
        for other in [
            name(b"bob", "", &[1, 2, 3, 4]),
            name(b"alice", "lora", &[1, 2, 3, 4]),
            name(b"alice", "", &[1, 2, 3, 5]),
            name(b"alice", "", &[2, 2, 3, 4]),
            name(b"alice", "", &[3, 4]),
        ] {
            assert_ne!(base, other);
        }
        assert!(!format!("{:?}", Tenant::of(b"secret")).contains("secret"));
    }
}
