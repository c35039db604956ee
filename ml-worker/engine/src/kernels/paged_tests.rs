use super::*;
use proptest::prelude::*;
use tch::Device;

/// A pool of random blocks with a random table for every row, and queries.
struct Case {
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    tables: Vec<Vec<u32>>,
    /// Which table a row has.
    of: Vec<usize>,
    spans: Vec<(usize, usize)>,
    scale: f64,
}

impl Case {
    fn new(seed: i64, kind: Kind, group: i64, kv_heads: i64, dim: i64, spans: &[(usize, usize)]) -> Self {
        tch::manual_seed(seed);
        let longest = spans.iter().map(|(_, len)| len.div_ceil(BLOCK_TOKENS)).max().unwrap_or(1);
        let blocks = (longest + 3) as i64;
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind);
        // Odd strides through the pool: neighbouring blocks of a sequence lie apart, sequences share blocks.
        let tables =
            (0..spans.len()).map(|i| (0..longest).map(|j| ((j * 7 + i * 3) % blocks as usize) as u32).collect());
        Self {
            queries: random(&[spans.len() as i64, group * kv_heads, dim]),
            keys: random(&[blocks, kv_heads, BLOCK_TOKENS as i64, dim]),
            values: random(&[blocks, kv_heads, BLOCK_TOKENS as i64, dim]),
            tables: tables.collect(),
            of: (0..spans.len()).collect(),
            spans: spans.to_vec(),
            scale: 1.0 / (dim as f64).sqrt(),
        }
    }

    /// The same with all rows in one text, as in prefill: they are computed together. What lies behind the text was
    /// never written, and may be anything.
    fn in_one_text(mut self) -> Self {
        let end = self.spans.iter().map(|(_, len)| *len).max().unwrap_or(0);
        let blocks = end.div_ceil(BLOCK_TOKENS);
        self.tables = vec![(0..blocks as u32).rev().collect()];
        self.of = vec![0; self.spans.len()];
        let written = end - (blocks - 1) * BLOCK_TOKENS;
        for pool in [&self.keys, &self.values] {
            let rest = (BLOCK_TOKENS - written) as i64;
            let _ = pool.get(0).narrow(1, written as i64, rest).fill_(f64::NAN);
        }
        self
    }

    fn rows(&self) -> Vec<PagedRow<'_>> {
        let tables = self.of.iter().map(|table| &self.tables[*table]);
        tables.zip(&self.spans).map(|(table, (first, len))| PagedRow { table, len: *len, first: *first }).collect()
    }

    fn run(&self, isa: Isa) -> Tensor {
        paged_attention_with(isa, &self.queries, &self.keys, &self.values, &self.rows(), self.scale).unwrap()
    }

    /// What libtorch says of row `index`, in f32.
    fn expected(&self, index: usize) -> Tensor {
        let table: Vec<i64> = self.tables[self.of[index]].iter().map(|block| i64::from(*block)).collect();
        let (first, len) = self.spans[index];
        let heads = self.queries.size()[1];
        let gather = |pool: &Tensor| {
            let picked = pool.to_kind(Kind::Float).index_select(0, &Tensor::from_slice(&table)).transpose(1, 2);
            let flat = picked.reshape([-1, pool.size()[1], pool.size()[3]]);
            let seen = flat.narrow(0, first as i64, (len - first) as i64).transpose(0, 1);
            seen.repeat_interleave_self_int(heads / pool.size()[1], 0, None).unsqueeze(0)
        };
        let query = self.queries.get(index as i64).to_kind(Kind::Float).unsqueeze(1).unsqueeze(0);
        let none = None::<&Tensor>;
        Tensor::scaled_dot_product_attention(
            &query,
            &gather(&self.keys),
            &gather(&self.values),
            none,
            0.0,
            false,
            self.scale,
            false,
        )
        .reshape([-1])
    }

    fn check(&self, isa: Isa, tolerance: f64) {
        let found = self.run(isa);
        for index in 0..self.spans.len() {
            let error =
                (found.get(index as i64).to_kind(Kind::Float) - self.expected(index)).abs().max().double_value(&[]);
            assert!(error <= tolerance, "row {index}, {:?}: off by {error}", self.spans[index]);
        }
    }
}

fn span() -> impl Strategy<Value = (usize, usize)> {
    (1usize..200).prop_flat_map(|len| (prop_oneof![Just(0), 0..len], Just(len)))
}

fn isas() -> Vec<Isa> {
    let mut list = vec![Isa::Portable];
    if Isa::best() != Isa::Portable {
        list.push(Isa::best());
    }
    list
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn paged_attention_should_equal_libtorch_whatever_the_lengths_windows_and_heads(
        seed in 0..1000i64,
        group in prop::sample::select(vec![1i64, 2, 3, 4, 7, 8]),
        kv_heads in 1..4i64,
        dim in prop::sample::select(vec![16i64, 64, 80, 96, 128, 256, 20]),
        spans in prop::collection::vec(span(), 1..12),
        one_text in any::<bool>(),
    ) {
        for isa in isas() {
            // Half a unit in the last place of values up to 4.
            for (kind, tolerance) in [(Kind::Float, 2e-5), (Kind::BFloat16, 0.009)] {
                let case = Case::new(seed, kind, group, kv_heads, dim, &spans);
                if one_text { case.in_one_text() } else { case }.check(isa, tolerance);
            }
        }
    }
}

#[test]
fn paged_attention_should_give_a_row_the_same_bits_when_other_rows_are_beside_it() {
    let apart = vec![(0, 33), (5, 100), (0, 1), (90, 129), (0, 500), (0, 16)];
    // More than are computed together, some with a window, one out of turn.
    let one_text: Vec<_> = (0..19).map(|i| (if i % 3 == 0 { 20 + i } else { 0 }, 50 + i)).chain([(3, 7)]).collect();
    for (isa, kind) in isas().into_iter().flat_map(|isa| [(isa, Kind::Float), (isa, Kind::BFloat16)]) {
        for (group, dim) in [(7, 64), (1, 80), (3, 96), (8, 128)] {
            let texts =
                [Case::new(1, kind, group, 2, dim, &apart), Case::new(1, kind, group, 2, dim, &one_text).in_one_text()];
            for case in texts {
                let together = case.run(isa);
                for (index, row) in case.rows().into_iter().enumerate() {
                    let query = case.queries.narrow(0, index as i64, 1);
                    let alone =
                        paged_attention_with(isa, &query, &case.keys, &case.values, &[row], case.scale).unwrap();
                    assert_eq!(alone.get(0), together.get(index as i64), "{isa:?} {kind:?} {group} {dim} {index}");
                }
            }
        }
    }
}

#[test]
fn paged_attention_should_weigh_rightly_when_scores_are_extreme() {
    for isa in isas() {
        let mut case = Case::new(2, Kind::BFloat16, 4, 1, 64, &[(0, 70), (3, 50)]);
        case.queries = case.queries * 40.0;
        case.check(isa, 0.02);
    }
}

#[test]
fn paged_attention_should_refuse_when_a_row_leaves_the_pool() {
    let case = Case::new(3, Kind::BFloat16, 2, 2, 64, &[(0, 20)]);
    let refuses = |row: PagedRow<'_>| {
        assert!(paged_attention(&case.queries, &case.keys, &case.values, &[row], 1.0).is_err(), "{row:?}");
    };
    refuses(PagedRow { table: &[0], len: 17, first: 0 });
    refuses(PagedRow { table: &[0, 99], len: 17, first: 0 });
    refuses(PagedRow { table: &[0, 1], len: 17, first: 17 });
    refuses(PagedRow { table: &[], len: 0, first: 0 });
    let row = PagedRow { table: &[0, 1], len: 17, first: 0 };
    let wide = case.keys.to_kind(Kind::Float);
    assert!(paged_attention(&case.queries, &wide, &case.values, &[row], 1.0).is_err());
    assert!(paged_attention(&case.queries, &case.keys, &case.values, &[row, row], 1.0).is_err());
    let strided = case.keys.transpose(0, 1).contiguous().transpose(0, 1);
    assert!(paged_attention(&case.queries, &strided, &case.values, &[row], 1.0).is_err());
}
