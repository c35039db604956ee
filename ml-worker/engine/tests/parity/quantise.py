"""Quantises models and packs their matrices as GPTQ, AWQ and FP8 checkpoints do.

Written from what is published of these formats, apart from the engine's own reading of them. The codes are found by
plain rounding: how good they are does not matter here, only that whoever unpacks them gets the weights back.
"""

import json
import shutil
from pathlib import Path

# The place of each output's code in a word of AWQ's, lowest bits first.
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def words(codes, bits, order):
    """Codes [rows, n] as int32 [rows, n * bits / 32]; `order` says which of a word's codes comes first, second, ..."""
    import numpy
    import torch

    codes = codes.numpy().astype(numpy.uint32).reshape(codes.shape[0], -1, 32 // bits)
    packed = numpy.zeros(codes.shape[:2], numpy.uint32)
    for place, which in enumerate(order):
        packed |= codes[:, :, which] << numpy.uint32(bits * place)
    return torch.from_numpy(packed.view(numpy.int32))


def whole_numbers(weight, bits, groups, symmetric):
    """Codes [out, in], zeros and scales [groups, out], and what they stand for, [out, in]."""
    import torch

    top, count = 2**bits - 1, int(groups.max()) + 1
    zeros, scales = [], []
    for group in range(count):
        part = weight[:, groups == group]
        low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        if symmetric:
            scales.append(2 * part.abs().amax(1) / top)
            zeros.append(torch.full_like(low, (top + 1) // 2))
        else:
            scales.append((high - low) / top)
            zeros.append((-low / scales[-1]).round())
    zeros, scales = torch.stack(zeros), torch.stack(scales).half()
    if not symmetric:
        # The ends of the range, which weights around zero never reach.
        zeros[0, 1], zeros[-1, 2] = 0, top
    zero, scale = zeros[groups].T, scales[groups].T.float()
    codes = ((weight / scale).round() + zero).clamp(0, top)
    return codes.int(), zeros.int(), scales, (codes - zero) * scale


def gptq(weight, about):
    import torch

    bits, size = about["bits"], about["group_size"]
    groups = torch.arange(weight.shape[1]) // (size if size > 0 else weight.shape[1])
    if about["desc_act"]:
        groups = groups[torch.randperm(len(groups))]
    codes, zeros, scales, dense = whole_numbers(weight, bits, groups, about["sym"])
    if about["checkpoint_format"] == "gptq":
        zeros = (zeros - 1) & (2**bits - 1)
    order = range(32 // bits)
    return dict(qweight=words(codes, bits, order).T.contiguous(), qzeros=words(zeros, bits, order), scales=scales,
                g_idx=groups.int()), dense


def awq(weight, about):
    import torch

    groups = torch.arange(weight.shape[1]) // about["group_size"]
    codes, zeros, scales, dense = whole_numbers(weight, 4, groups, False)
    return dict(qweight=words(codes.T.contiguous(), 4, AWQ_ORDER), qzeros=words(zeros, 4, AWQ_ORDER),
                scales=scales), dense


def floats(weight, rows, columns, dtype):
    """Weights in e4m3, a scale for each block of `rows` x `columns`, and what they stand for."""
    import torch

    parts = [block.split(columns, 1) for block in weight.split(rows)]
    scales = torch.tensor([[part.abs().max() / 448 for part in row] for row in parts]).to(dtype)
    spread = scales.float().repeat_interleave(rows, 0)[: len(weight)]
    spread = spread.repeat_interleave(columns, 1)[:, : weight.shape[1]]
    packed = (weight / spread).clamp(-448, 448).to(torch.float8_e4m3fn)
    return packed, scales, packed.float() * spread


def fp8(weight, about):
    import torch

    packed, scales, dense = floats(weight, *about["weight_block_size"], torch.bfloat16)
    return dict(weight=packed, weight_scale_inv=scales), dense


def compressed(weight, about):
    import torch

    packed, scales, dense = floats(weight, 1, weight.shape[1], torch.float32)
    return dict(weight=packed, weight_scale=scales), dense


KINDS = {"gptq": gptq, "awq": awq, "fp8": fp8, "compressed-tensors": compressed}


def quantise(model, about):
    """Replaces weights by what their packed form stands for; returns the packed tensors by layer."""
    import torch

    kept = about.get("modules_to_not_convert", []) + about.get("ignore", [])
    packed = {}
    for name, module in model.named_modules():
        left_alone = any(name.endswith(other) for other in kept) or name == "lm_head" and not about.get("lm_head")
        # Routers of experts are never quantised.
        if isinstance(module, torch.nn.Linear) and not left_alone and not name.endswith("mlp.gate"):
            packed[name], dense = KINDS[about["quant_method"]](module.weight.data, about)
            module.weight.data.copy_(dense)
    return packed


def rewrite(folder: Path, packed, about):
    """Turns the checkpoint into the packed one; what it was goes to `dense` within."""
    from safetensors.torch import load_file, save_file

    weights, config = folder / "model.safetensors", folder / "config.json"
    (folder / "dense").mkdir()
    for file in (weights, config):
        shutil.copy(file, folder / "dense")
    tensors = load_file(weights)
    for name, parts in packed.items():
        del tensors[f"{name}.weight"]
        tensors.update({f"{name}.{part}": tensor.contiguous() for part, tensor in parts.items()})
    save_file(tensors, weights)
    config.write_text(json.dumps(dict(json.loads(config.read_text()), quantization_config=about), indent=2))
