use super::*;
use safetensors::tensor::TensorView;
use std::path::Path;

/// A tensor to be written: name, type, shape, bytes.
type Stored = (&'static str, Dtype, Vec<usize>, Vec<u8>);

fn write(dir: &Path, tensors: &[Stored]) -> Weights {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap_or_else(|error| panic!("{name}: {error}")))
    });
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
    Weights::open(dir).unwrap()
}

fn zeroed(name: &'static str, dtype: Dtype, shape: &[usize]) -> Stored {
    let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
    (name, dtype, shape.to_vec(), vec![0; bytes])
}

const GPTQ: Packing = Packing::Gptq { bits: 4, group: Some(8), ordered: false, zeros_less_one: true };
const AWQ: Packing = Packing::Awq { group: Some(8) };

/// A matrix of 8 outputs and 16 inputs in two groups.
fn whole() -> Vec<Stored> {
    vec![
        zeroed("x.qweight", Dtype::I32, &[2, 8]),
        zeroed("x.qzeros", Dtype::I32, &[2, 1]),
        zeroed("x.scales", Dtype::F16, &[2, 8]),
        zeroed("x.g_idx", Dtype::I32, &[16]),
    ]
}

fn floats(scale: Stored) -> Vec<Stored> {
    vec![zeroed("x.weight", Dtype::F8_E4M3, &[8, 16]), scale]
}

/// What is said of these tensors; empty if they are read.
fn complaint(packing: Option<Packing>, tensors: &[Stored], shape: [usize; 2]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let weights = write(dir.path(), tensors);
    let quantisation = packing.map(|packing| Quantisation { method: "some kind", packing });
    let found = PackedMatrix::find(&weights, quantisation.as_ref(), "x.weight", &shape);
    let read = found.and_then(|found| found.expect("a packed matrix").read(Kind::Float, Device::Cpu));
    match read {
        Ok(tensor) => {
            assert_eq!(tensor.size(), shape.map(|n| n as i64));
            String::new()
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn packed_matrix_should_be_refused_by_file_and_tensor_when_something_is_wrong_with_it() {
    let with = |change: Stored| {
        let mut tensors = whole();
        tensors.retain(|tensor| tensor.0 != change.0);
        tensors.push(change);
        tensors
    };
    let without = |name: &str| whole().into_iter().filter(|tensor| tensor.0 != name).collect::<Vec<_>>();
    let ordered = Packing::Gptq { bits: 4, group: Some(8), ordered: true, zeros_less_one: true };
    let odd_group = ("x.g_idx", Dtype::I32, vec![16], [[0u8; 60].to_vec(), vec![2, 0, 0, 0]].concat());
    let blocks = Packing::Fp8 { block: Some((4, 5)) };
    let scales = |shape: &[usize]| floats(zeroed("x.weight_scale_inv", Dtype::F32, shape));
    let wide = [8, 16];
    for (packing, tensors, shape, expected) in [
        (Some(GPTQ), without("x.qzeros"), wide, "no tensor `x.qzeros`"),
        (Some(GPTQ), without("x.scales"), wide, "no tensor `x.scales`"),
        (Some(ordered), without("x.g_idx"), wide, "no tensor `x.g_idx`"),
        (Some(GPTQ), with(odd_group), wide, "`x.g_idx` names group 2 of 2"),
        (Some(GPTQ), with(zeroed("x.qweight", Dtype::I32, &[4, 8])), wide, "`x.qweight` has shape [4, 8]"),
        (Some(GPTQ), with(zeroed("x.qweight", Dtype::I64, &[2, 8])), wide, "`x.qweight` has element type I64"),
        (Some(GPTQ), with(zeroed("x.scales", Dtype::I32, &[2, 8])), wide, "`x.scales` has element type I32"),
        (Some(GPTQ), with(zeroed("x.weight", Dtype::F32, &[8, 16])), wide, "`x.qweight` is there beside `x.weight`"),
        (Some(GPTQ), whole(), [8, 12], "`x.qweight` is made of words of 8, which do not divide 12"),
        (Some(AWQ), whole(), wide, "`x.qweight` has shape [2, 8], the configuration asks for [16, 1]"),
        (Some(blocks), whole(), wide, "`x.qweight` is not packed as config.json says: some kind, 8 bits"),
        (None, whole(), wide, "`x.qweight` is packed, but config.json has no field `quantization_config`"),
        (Some(GPTQ), scales(&[2, 4]), wide, "`x.weight` is not packed as config.json says: some kind, 4 bits"),
        (
            Some(blocks),
            scales(&[2, 3]),
            wide,
            "`x.weight_scale_inv` has shape [2, 3], the configuration asks for [2, 4]",
        ),
        (Some(Packing::Fp8 { block: None }), scales(&[2, 4]), wide, "`x.weight_scale_inv` has shape [2, 4]"),
        (Some(Packing::Fp8 { block: None }), scales(&[7, 1]), wide, "`x.weight_scale_inv` has shape [7, 1]"),
        (Some(blocks), scales(&[2, 4])[..1].to_vec(), wide, "no tensor `x.weight_scale_inv`"),
    ] {
        let message = complaint(packing, &tensors, shape);
        assert!(message.contains(expected) && !message.contains('\n'), "{expected}: {message}");
        let place = if expected.starts_with("no tensor") { "/" } else { "model.safetensors: " };
        assert!(message.contains(place), "{message}");
    }
    assert_eq!(complaint(Some(GPTQ), &without("x.g_idx"), wide), "");
    assert_eq!(complaint(Some(blocks), &scales(&[2, 4]), wide), "");
}

#[test]
fn matrix_should_be_left_as_it_is_when_it_is_not_packed() {
    let dir = tempfile::tempdir().unwrap();
    let weights = write(dir.path(), &[zeroed("x.weight", Dtype::BF16, &[8, 16])]);
    for packing in [GPTQ, AWQ, Packing::Fp8 { block: None }] {
        let quantisation = Quantisation { method: "some kind", packing };
        assert!(PackedMatrix::find(&weights, Some(&quantisation), "x.weight", &[8, 16]).unwrap().is_none());
    }
}

#[test]
fn floats_should_be_scaled_when_there_is_one_scale_for_all_or_for_each_output() {
    // Ones in e4m3.
    let ones = ("x.weight", Dtype::F8_E4M3, vec![2, 3], vec![0x38; 6]);
    let scales: Vec<u8> = [3f32, 5.0].iter().flat_map(|scale| scale.to_le_bytes()).collect();
    let quantisation = Quantisation { method: "some kind", packing: Packing::Fp8 { block: None } };
    for (shape, expected) in [
        (vec![], [3f32, 3.0, 3.0, 3.0, 3.0, 3.0]),
        (vec![1], [3.0; 6]),
        (vec![2], [3.0, 3.0, 3.0, 5.0, 5.0, 5.0]),
        (vec![2, 1], [3.0, 3.0, 3.0, 5.0, 5.0, 5.0]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let bytes = scales[..4 * shape.iter().product::<usize>()].to_vec();
        let weights = write(dir.path(), &[ones.clone(), ("x.weight_scale", Dtype::F32, shape, bytes)]);
        let matrix = PackedMatrix::find(&weights, Some(&quantisation), "x.weight", &[2, 3]).unwrap().unwrap();
        assert_eq!(matrix.tensors(), ["x.weight", "x.weight_scale"]);
        let read = matrix.read(Kind::BFloat16, Device::Cpu).unwrap();
        assert_eq!(read, Tensor::from_slice(&expected).view([2, 3]).to_kind(Kind::BFloat16));
    }
}

#[test]
fn pieces_should_be_joined_when_a_matrix_is_larger_than_one() {
    // Every output has a scale of its own, and rows are so long that a piece holds few of them.
    let (outputs, inputs) = (11, PIECE / 4 + 1);
    let ones = ("x.weight", Dtype::F8_E4M3, vec![outputs, inputs], vec![0x38; outputs * inputs]);
    let scales: Vec<u8> = (0..outputs).flat_map(|output| (output as f32).to_le_bytes()).collect();
    let dir = tempfile::tempdir().unwrap();
    let weights = write(dir.path(), &[ones, ("x.weight_scale", Dtype::F32, vec![outputs], scales)]);
    let quantisation = Quantisation { method: "some kind", packing: Packing::Fp8 { block: None } };
    let matrix = PackedMatrix::find(&weights, Some(&quantisation), "x.weight", &[outputs, inputs]).unwrap().unwrap();
    let read = matrix.read(Kind::BFloat16, Device::Cpu).unwrap();
    let expected = Tensor::arange(outputs as i64, (Kind::BFloat16, Device::Cpu)).view([-1, 1]);
    assert_eq!(read, expected.expand([outputs as i64, inputs as i64], false));
}
