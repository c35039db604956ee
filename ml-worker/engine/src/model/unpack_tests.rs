use super::*;

/// Bytes of words written by hand.
fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn floats_of_8_bits_should_be_those_of_libtorch_when_all_of_them_are_unpacked() {
    let all: Vec<u8> = (0..=255).collect();
    let theirs = tch::Tensor::from_data_size(&all, &[256], tch::Kind::Float8e4m3fn).to_kind(tch::Kind::Float);
    let theirs = Vec::<f32>::try_from(theirs).unwrap();
    for (byte, (ours, theirs)) in E4M3.iter().zip(theirs).enumerate() {
        assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{byte}: {ours}, {theirs}");
    }
    assert_eq!((E4M3[0x7e], E4M3[0x01], E4M3[0xc4]), (448.0, 1.0 / 512.0, -3.0));
}

#[test]
fn floats_should_be_scaled_by_their_block_when_blocks_do_not_divide_the_matrix() {
    // 1, 2, 1, 2, ... in blocks of 2 x 2 of a 3 x 3 matrix.
    let bytes: Vec<u8> = [0x38, 0x40].into_iter().cycle().take(9).collect();
    let matrix = Floats { bytes: &bytes, scales: vec![1.0, 10.0, 100.0, 1000.0], block: (2, 2), inputs: 3 };
    let mut out = [0.0; 9];
    matrix.rows(0, &mut out);
    assert_eq!(out, [1.0, 2.0, 10.0, 2.0, 1.0, 20.0, 100.0, 200.0, 1000.0]);
    matrix.rows(1, &mut out[..6]);
    assert_eq!(out[..6], [2.0, 1.0, 20.0, 100.0, 200.0, 1000.0]);
}

#[test]
fn zeros_should_wrap_when_the_format_stores_them_less_one() {
    let layout = |bits, zeros_less_one| Layout::Gptq { bits, zeros_less_one };
    let word = bytes(&[0xf765_4310]);
    assert_eq!(layout(4, false).zeros(&word), [0.0, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0, 15.0]);
    assert_eq!(layout(4, true).zeros(&word), [1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.0]);
    assert_eq!(layout(4, true).zeros(&bytes(&[u32::MAX])), [0.0; 8]);
    let word = bytes(&[0xff80_7f00]);
    assert_eq!(layout(8, false).zeros(&word), [0.0, 127.0, 128.0, 255.0]);
    assert_eq!(layout(8, true).zeros(&word), [1.0, 128.0, 129.0, 0.0]);
    assert_eq!(Layout::Awq.zeros(&bytes(&[0x7531_6420])), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
}

#[test]
fn inputs_should_be_scaled_by_their_group_when_gptq_states_an_order() {
    // Two outputs of eight inputs; the inputs alternate between two groups.
    let matrix = Codes {
        layout: Layout::Gptq { bits: 4, zeros_less_one: true },
        words: vec![0x7654_3210, 0xfedc_ba98],
        zeros: vec![0.0, 8.0, 1.0, 9.0],
        scales: vec![1.0, 2.0, 10.0, 100.0],
        groups: vec![0, 1, 0, 1, 0, 1, 0, 1],
        outputs: 2,
    };
    let mut out = [0.0; 16];
    matrix.rows(0, &mut out);
    assert_eq!(out[..8], [0.0, 0.0, 2.0, 20.0, 4.0, 40.0, 6.0, 60.0]);
    assert_eq!(out[8..], [0.0, 0.0, 4.0, 200.0, 8.0, 400.0, 12.0, 600.0]);
    matrix.rows(1, &mut out[..8]);
    assert_eq!(out[..8], out[8..]);
}

#[test]
fn outputs_should_be_in_order_when_awq_shuffled_them() {
    // Sixteen outputs of two inputs: output n has code n % 8 and then 15 - n % 8.
    let (up, down) = (0x7531_6420, 0x8ace_9bdf);
    let matrix = Codes {
        layout: Layout::Awq,
        words: vec![up, up, down, down],
        zeros: vec![1.0; 16],
        scales: (0..16).map(|output| if output < 8 { 1.0 } else { 0.5 }).collect(),
        groups: vec![0, 0],
        outputs: 16,
    };
    let mut out = [0.0; 32];
    matrix.rows(0, &mut out);
    for (output, pair) in out.chunks(2).enumerate() {
        let (code, scale) = ((output % 8) as f32, if output < 8 { 1.0 } else { 0.5 });
        assert_eq!(pair, [(code - 1.0) * scale, (14.0 - code) * scale], "{output}");
    }
    let mut some = [0.0; 6];
    matrix.rows(7, &mut some);
    assert_eq!(some, out[14..20]);
}
