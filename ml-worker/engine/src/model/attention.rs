//! Attention of new tokens over what is cached.

use tch::{Kind, TchError, Tensor};

/// Attention of `queries` (`[new, heads, head_dim]`) over `keys` and `values` (`[kv_heads, total, head_dim]`), where
/// the queries are the last `new` of `total` positions, and each sees the last `window` positions up to and with its
/// own, or all. Returns `[new, heads * head_dim]`.
pub fn attention(queries: &Tensor, keys: &Tensor, values: &Tensor, window: Option<usize>) -> Result<Tensor, TchError> {
    let (new, heads, dim) = queries.size3()?;
    let (kv_heads, total, _) = keys.size3()?;
    // Positions that no query sees are left away.
    let window = window.map_or(total, |window| window as i64);
    let unseen = (total - new + 1 - window).max(0);
    let total = total - unseen;
    let seen = |x: &Tensor| x.f_narrow(1, unseen, total)?.f_unsqueeze(0);
    let (keys, values) = (seen(keys)?, seen(values)?);
    let none = None::<&Tensor>;
    if new == 1 {
        // One query a head: the query heads that share a key head become rows of one product.
        let folded = queries.f_reshape([1, kv_heads, heads / kv_heads, dim])?;
        let out = Tensor::f_scaled_dot_product_attention(&folded, &keys, &values, none, 0.0, false, None, false)?;
        return out.f_reshape([1, heads * dim]);
    }
    let queries = queries.f_transpose(0, 1)?.f_unsqueeze(0)?;
    let out = if new == total && window >= total {
        Tensor::f_scaled_dot_product_attention(&queries, &keys, &values, none, 0.0, true, None, true)?
    } else {
        let past = Tensor::f_ones([new, total], (Kind::Bool, queries.device()))?.f_tril(total - new)?;
        let mask = if window >= total { past } else { past.f_triu(total - new + 1 - window)? };
        Tensor::f_scaled_dot_product_attention(&queries, &keys, &values, Some(&mask), 0.0, false, None, true)?
    };
    out.f_squeeze_dim(0)?.f_transpose(0, 1)?.f_reshape([new, heads * dim])
}
