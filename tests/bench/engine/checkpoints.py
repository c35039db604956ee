"""Checkpoints of true shapes with random weights, for measuring: speed does not depend on what the weights say.

    checkpoints.py NAME [--dir DIR]        NAME: 0.5b, 1b or tiny; prints the folder

Hugging Face layout in bf16, and beside it the same weights in GGUF (bf16) for llama.cpp. Every byte follows from the name:
a generator with a fixed seed draws the weights. What is there already is not made again.

The tokenizer is a byte-level BPE over all words of two, three and four lower-case letters in turn, as many as fill the
vocabulary. So nearly every token is a plain word: whatever a model of random weights says is readable text, and no part
of it is held back as half a character by a server that streams.
"""
import argparse
import itertools
import json
import math
import os
import pathlib
import shutil
import string

import numpy as np

import to_gguf

SEED = 20261121
# Changes when what is made changes, so that old files are not taken for new ones.
FORMAT = "1"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SHAPES = {
    "0.5b": dict(
        model_type="qwen2", hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        intermediate_size=4864, vocab_size=151936, rms_norm_eps=1e-6, rope_theta=1e6, max_position_embeddings=32768,
    ),
    "1b": dict(
        model_type="llama", hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=8192, vocab_size=128256, rms_norm_eps=1e-5, rope_theta=5e5, max_position_embeddings=131072,
        rope_scaling=LLAMA3_ROPE,
    ),
    "tiny": dict(
        model_type="llama", hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=128, vocab_size=1024, rms_norm_eps=1e-5, rope_theta=1e4, max_position_embeddings=8192,
    ),
}


def config(shape):
    family = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[shape["model_type"]]
    extra = {"use_sliding_window": False} if shape["model_type"] == "qwen2" else {"attention_bias": False, "mlp_bias": False}
    end = shape["vocab_size"] - len(SPECIAL)
    return {
        "architectures": [family], **shape, **extra, "head_dim": shape["hidden_size"] // shape["num_attention_heads"],
        "hidden_act": "silu", "tie_word_embeddings": True, "torch_dtype": "bfloat16", "bos_token_id": end, "eos_token_id": end,
        "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
    }


def byte_symbols():
    """The printable stand-ins of the 256 bytes, as every byte-level BPE has them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + number) for number in range(len(others))]


def tokenizer(size):
    """`tokenizer.json` with exactly `size` tokens, the special ones last."""
    vocabulary, merges = byte_symbols(), []
    wanted = size - len(SPECIAL) - len(vocabulary)
    words = itertools.chain.from_iterable(itertools.product(string.ascii_lowercase, repeat=n) for n in (2, 3, 4))
    for letters in itertools.islice(words, wanted):
        word = "".join(letters)
        merges.append([word[:-1], word[-1]])
        vocabulary.append(word)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": len(vocabulary) + number, "content": text, **flags} for number, text in enumerate(SPECIAL)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(vocabulary)}, "merges": merges,
        },
    }


def tensors(shape):
    """Names and shapes in file order."""
    d, h = shape["hidden_size"], shape["hidden_size"] // shape["num_attention_heads"]
    q, kv, f = shape["num_attention_heads"] * h, shape["num_key_value_heads"] * h, shape["intermediate_size"]
    yield "model.embed_tokens.weight", (shape["vocab_size"], d)
    for layer in range(shape["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", (d,)
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            yield f"{at}self_attn.{name}_proj.weight", (rows, d)
            if shape["model_type"] == "qwen2":
                yield f"{at}self_attn.{name}_proj.bias", (rows,)
        yield at + "self_attn.o_proj.weight", (d, q)
        yield at + "post_attention_layernorm.weight", (d,)
        yield at + "mlp.gate_proj.weight", (f, d)
        yield at + "mlp.up_proj.weight", (f, d)
        yield at + "mlp.down_proj.weight", (d, f)
    yield "model.norm.weight", (d,)


def bf16(values):
    """f32 to the bits of the nearest bf16, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_weights(shape, file):
    listed, at, header = list(tensors(shape)), 0, {"__metadata__": {"format": "pt"}}
    for name, dims in listed:
        size = 2 * math.prod(dims)
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(file, "wb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
        for number, (name, dims) in enumerate(listed):
            # A generator of its own for each tensor: none depends on those before it.
            draw = np.random.Generator(np.random.SFC64([SEED, number]))
            values = draw.standard_normal(math.prod(dims), dtype=np.float32)
            values *= np.float32(0.02)
            if "norm" in name:
                values += np.float32(1.0)
            out.write(bf16(values).tobytes())


def make(name, folder):
    """The folder of a checkpoint, made if it is not there."""
    folder = pathlib.Path(folder) / f"pacer-bench-{name}"
    stamp = folder / ".made"
    if stamp.exists() and stamp.read_text() == FORMAT:
        return folder
    shape, part = SHAPES[name], folder.with_suffix(f".part{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    part.mkdir(parents=True)
    (part / "config.json").write_text(json.dumps(config(shape), indent=1))
    (part / "tokenizer.json").write_text(json.dumps(tokenizer(shape["vocab_size"]), ensure_ascii=False))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL[0], "pad_token": SPECIAL[0],
                "chat_template": TEMPLATE, "model_max_length": shape["max_position_embeddings"], "clean_up_tokenization_spaces": False}
    (part / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    write_weights(shape, part / "model.safetensors")
    to_gguf.convert(part, part / "model-bf16.gguf")
    (part / ".made").write_text(FORMAT)
    part.rename(folder)
    return folder


def main():
    cache = pathlib.Path(os.environ.get("PACER_CACHE", pathlib.Path.home() / ".cache/pacer"))
    parser = argparse.ArgumentParser(description="Checkpoints of true shapes with random weights")
    parser.add_argument("name", choices=SHAPES)
    parser.add_argument("--dir", type=pathlib.Path, default=cache / "bench-models")
    args = parser.parse_args()
    print(make(args.name, args.dir))


if __name__ == "__main__":
    main()
