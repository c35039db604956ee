"""Writes a checkpoint in Hugging Face layout as GGUF for llama.cpp: the very same weights, bf16 or f32 as they are.

    to_gguf.py FOLDER FILE

Llama and Qwen2 with a byte-level BPE tokenizer. llama.cpp's own converter knows tokenizers by a list of hashes and refuses
those that are not in it, so ours cannot go through it.
"""
import json
import mmap
import pathlib
import sys

import gguf
import numpy as np

NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    **{f"self_attn.{n}_proj.{p}": f"attn_{n}.{p}" for n in "qkv" for p in ("weight", "bias")},
}
OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def tensors(file):
    """Name, dtype and raw numbers (bf16 as uint16) of everything in a safetensors file."""
    with open(file, "rb") as opened:
        view = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    length = int.from_bytes(view[:8], "little")
    header = json.loads(bytes(view[8 : 8 + length]))
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        kind = {"BF16": np.uint16, "F32": np.float32, "F16": np.float16}[entry["dtype"]]
        yield name, entry["dtype"], np.frombuffer(view[8 + length + start : 8 + length + end], kind).reshape(entry["shape"])


def new_name(name):
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}"


def interleaved(weight, heads):
    """Rows of q or k as llama.cpp's Llama wants them: the two halves of a head that rotate together side by side."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def rope_factors(config, head):
    """What each rotary frequency is divided by, for Llama 3's scaling; None without one."""
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise ValueError(f"rope scaling {kind} is not supported here")
    turns = scaling["original_max_position_embeddings"] / (2 * np.pi) / config["rope_theta"] ** (np.arange(0, head, 2) / head)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / (kept + (1 - kept) / scaling["factor"])).astype(np.float32)


def write_tokenizer(writer, folder, config):
    whole = json.loads((folder / "tokenizer.json").read_text())
    model, size = whole["model"], config["vocab_size"]
    if model["type"] != "BPE":
        raise ValueError(f"{folder}: the tokenizer is {model['type']}, not BPE")
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds = [gguf.TokenType.UNUSED] * size
    for token, number in model["vocab"].items():
        tokens[number], kinds[number] = token, gguf.TokenType.NORMAL
    for added in whole["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    ends = config.get("eos_token_id")
    writer.add_eos_token_id(ends[0] if isinstance(ends, list) else ends)
    if config.get("bos_token_id") is not None:
        writer.add_bos_token_id(config["bos_token_id"])
    writer.add_add_bos_token(False)
    settings = folder / "tokenizer_config.json"
    template = json.loads(settings.read_text()).get("chat_template") if settings.exists() else None
    template = template or ((folder / "chat_template.jinja").read_text() if (folder / "chat_template.jinja").exists() else None)
    if template:
        writer.add_chat_template(template)


def convert(folder, file):
    folder = pathlib.Path(folder)
    config = json.loads((folder / "config.json").read_text())
    arch = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}[config["architectures"][0]]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    writer = gguf.GGUFWriter(str(file), arch)
    writer.add_name(folder.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    write_tokenizer(writer, folder, config)
    main = gguf.GGMLQuantizationType.F32
    factors = rope_factors(config, head)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    for source in sorted(folder.glob("*.safetensors")):
        for name, dtype, values in tensors(source):
            if arch == "llama" and (".q_proj." in name or ".k_proj." in name):
                values = interleaved(values, heads if ".q_proj." in name else kv_heads)
            name = new_name(name)
            if values.ndim == 1:
                # llama.cpp wants norms and biases in f32 whatever the rest is.
                values = (values.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else values.astype(np.float32)
                writer.add_tensor(name, values)
            elif dtype == "BF16":
                main = gguf.GGMLQuantizationType.BF16
                values = np.ascontiguousarray(values).view(np.uint8)
                writer.add_tensor(name, values, raw_dtype=gguf.GGMLQuantizationType.BF16)
            else:
                writer.add_tensor(name, np.ascontiguousarray(values))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if main == gguf.GGMLQuantizationType.BF16 else gguf.LlamaFileType.ALL_F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    convert(sys.argv[1], sys.argv[2])
