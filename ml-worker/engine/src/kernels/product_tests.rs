use super::*;
use proptest::prelude::*;
use tch::Device;

fn isas() -> Vec<Isa> {
    let mut list = vec![Isa::Portable];
    if Isa::best() != Isa::Portable {
        list.push(Isa::best());
    }
    list
}

fn random(seed: i64, rows: i64, columns: i64, kind: Kind) -> Tensor {
    tch::manual_seed(seed);
    Tensor::randn([rows, columns], (Kind::Float, Device::Cpu)).to_kind(kind)
}

/// The largest difference, as a part of what `expected` has in its largest element.
fn error(found: &Tensor, expected: &Tensor) -> f64 {
    let expected = expected.to_kind(Kind::Double);
    ((found.to_kind(Kind::Double) - &expected).abs().max() / expected.abs().max()).double_value(&[])
}

fn in_double(x: &Tensor, weight: &Tensor) -> Tensor {
    x.to_kind(Kind::Double).linear(&weight.to_kind(Kind::Double), None::<&Tensor>)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn product_should_equal_the_exact_one_but_for_rounding_whatever_its_shape(
        seed in 0..1000i64, rows in 1..40i64, words in 1..60i64, out in 1..100i64,
    ) {
        for isa in isas() {
            for (kind, depth, tolerance) in [(Kind::Float, words, 1e-6), (Kind::BFloat16, 2 * words, 1e-6)] {
                let (x, weight) = (random(seed, rows, depth, kind), random(seed + 1, out, depth, kind));
                let bias: Vec<f32> = (0..out).map(|i| i as f32 / 7.0).collect();
                let packed = Packed::new(&weight, Order::Plain).unwrap();
                let product = Product::new(&packed, Some(&bias), Activations::Float).unwrap().on(isa);
                let expected = in_double(&x, &weight) + Tensor::from_slice(&bias);
                // A bf16 model's logits must not have been bf16 on their way.
                let found = product.forward(&x, Kind::Float).unwrap();
                prop_assert!(error(&found, &expected) < tolerance, "{isa:?} {kind:?}: {}", error(&found, &expected));
                let mut sum = random(seed + 2, rows, out, kind);
                let expected = expected + sum.to_kind(Kind::Double);
                product.add_to(&x, &mut sum).unwrap();
                let allowed = if kind == Kind::Float { 1e-6 } else { 0.004 };
                prop_assert!(error(&sum, &expected) < allowed);
            }
        }
    }

    #[test]
    fn gated_product_should_equal_silu_times_up(seed in 0..1000i64, rows in 1..15i64, words in 1..40i64, out in 1..4i64) {
        let (half, depth) = (16 * out, 2 * words);
        for (isa, kind) in isas().into_iter().flat_map(|isa| [(isa, Kind::Float), (isa, Kind::BFloat16)]) {
            let (x, weight) = (random(seed, rows, depth, kind), random(seed + 1, 2 * half, depth, kind));
            let packed = Packed::new(&weight, Order::Gated).unwrap();
            let both = in_double(&x, &weight);
            let expected = both.narrow(1, 0, half).silu() * both.narrow(1, half, half);
            let found = Product::new(&packed, None, Activations::Float).unwrap().on(isa).forward(&x, kind).unwrap();
            let allowed = if kind == Kind::Float { 2e-6 } else { 0.004 };
            prop_assert!(error(&found, &expected) < allowed);
        }
    }

    #[test]
    fn int8_product_should_equal_that_of_the_rounded_weights(
        seed in 0..1000i64, rows in 1..30i64, words in 1..300i64, out in 1..70i64,
    ) {
        let depth = 4 * words;
        let (x, weight) = (random(seed, rows, depth, Kind::BFloat16), random(seed + 1, out, depth, Kind::BFloat16));
        let packed = Packed::int8(&weight, Order::Plain).unwrap();
        let restored = Tensor::zeros([out, depth], (Kind::Float, Device::Cpu));
        for index in 0..out {
            let mut row = vec![0f32; depth as usize];
            packed.row(index as usize, &mut row);
            restored.get(index).copy_(&Tensor::from_slice(&row));
        }
        let expected = in_double(&x, &restored);
        let mut exact = Vec::new();
        for isa in isas() {
            let product = |activations| Product::new(&packed, None, activations).unwrap().on(isa);
            let found = product(Activations::Float).forward(&x, Kind::Float).unwrap();
            prop_assert!(error(&found, &expected) < 2e-6, "{isa:?}: {}", error(&found, &expected));
            let found = product(Activations::Int8).forward(&x, Kind::Float).unwrap();
            prop_assert!(error(&found, &expected) < 0.03, "{isa:?}: {}", error(&found, &expected));
            exact.push(found);
        }
        // Sums of integers are the same on every processor.
        prop_assert!(exact.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn product_should_give_a_row_the_same_bits_when_other_rows_are_beside_it() {
    let weight = random(1, 100, 200, Kind::BFloat16);
    for isa in isas() {
        for (packed, activations) in [
            (Packed::new(&weight, Order::Plain).unwrap(), Activations::Float),
            (Packed::int8(&weight, Order::Plain).unwrap(), Activations::Float),
            (Packed::int8(&weight, Order::Plain).unwrap(), Activations::Int8),
            (Packed::new(&weight.to_kind(Kind::Float), Order::Plain).unwrap(), Activations::Float),
        ] {
            let kind = if packed.format == Format::F32 { Kind::Float } else { Kind::BFloat16 };
            let x = random(2, 37, 200, kind);
            let product = Product::new(&packed, None, activations).unwrap().on(isa);
            let together = product.forward(&x, Kind::Float).unwrap();
            for (first, count) in [(0, 1), (36, 1), (5, 2), (7, 11), (3, 12), (20, 13)] {
                let some = product.forward(&x.narrow(0, first, count), Kind::Float).unwrap();
                assert_eq!(some, together.narrow(0, first, count), "{isa:?} {activations:?}");
            }
        }
    }
}

#[test]
fn product_should_give_the_same_bits_when_rows_crowd_in_the_cache_and_are_laid_out_anew() {
    // 4 KiB a row, and half of that: 12 such rows share one set of lines, or two.
    for (depth, kind) in [(2048, Kind::BFloat16), (1024, Kind::BFloat16), (1024, Kind::Float)] {
        let weight = random(1, 70, depth, kind);
        let (plain, x) = (Packed::new(&weight, Order::Plain).unwrap(), random(2, 61, depth, kind));
        let int8 = Packed::int8(&weight, Order::Plain).unwrap();
        for (packed, activations) in
            [(&plain, Activations::Float), (&int8, Activations::Float), (&int8, Activations::Int8)]
        {
            let product = Product::new(packed, None, activations).unwrap();
            let together = product.forward(&x, Kind::Float).unwrap();
            let alone: Vec<_> =
                (0..61).map(|row| product.forward(&x.narrow(0, row, 1), Kind::Float).unwrap()).collect();
            assert_eq!(together, Tensor::cat(&alone, 0), "{depth} {kind:?} {activations:?}");
            // Memory that is used again holds what wider rows have left there.
            assert_eq!(product.forward(&x.narrow(0, 9, 25), Kind::Float).unwrap(), together.narrow(0, 9, 25));
        }
        let found = Product::new(&plain, None, Activations::Float).unwrap().forward(&x, Kind::Float).unwrap();
        assert!(error(&found, &in_double(&x, &weight)) < 1e-5);
    }
}

#[test]
fn product_should_take_rows_that_do_not_lie_on_words() {
    let weight = random(1, 40, 6, Kind::BFloat16);
    let flat = random(2, 1, 13, Kind::BFloat16).reshape([13]);
    let x = flat.narrow(0, 1, 12).reshape([2, 6]);
    let packed = Packed::new(&weight, Order::Plain).unwrap();
    let product = Product::new(&packed, None, Activations::Float).unwrap();
    assert!(error(&product.forward(&x, Kind::Float).unwrap(), &in_double(&x, &weight)) < 1e-6);
    let none = product.forward(&x.narrow(0, 0, 0), Kind::Float).unwrap();
    assert_eq!(none.size(), [0, 40]);
    assert!(product.forward(&flat.reshape([1, 13]), Kind::Float).is_err());
    let mut narrow = Tensor::zeros([2, 39], (Kind::BFloat16, Device::Cpu));
    assert!(product.add_to(&x, &mut narrow).is_err());
}
