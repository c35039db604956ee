"""Makes small random checkpoints of every family, and says what Hugging Face's transformers computes with them.

    generate.py CACHE     writes to CACHE/<hash of this folder>, unless it is there already; prints that folder

The hash is the BLAKE2b-256 over the files of this folder (see `stamp`); ../parity.rs computes it too, so a test never
reads expectations of another script or of another version. What is in the folder:

    cases.json              the names below, and how the checkpoints were made
    NAME/                   a checkpoint as `save_pretrained` writes it, some changed afterwards as users meet them;
                            where its matrices are packed (quantise.py), `dense` within holds what they stand for, with
                            which transformers computed
    NAME/expected.safetensors
        tokens        prompt and the 128 tokens that greedy decoding in f32 adds to it
        logits        f32 logits of every position, computed in f32
        bf16          log-probabilities of every position from a forward pass in bf16; the last product is in f32
    NAME/adapters/A/        adapters for the checkpoint in PEFT's layout; expected.safetensors there holds `logits` of the
                            same tokens, computed by the peft package with the adapter merged into the weights
    templates.json          conversations rendered by apply_chat_template (chats.py)
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from quantise import quantise, rewrite

HERE = Path(__file__).resolve().parent
PROMPT, ANSWER, VOCAB = 40, 128, 320
# Two candidates closer than this could change places by the order of a sum.
CLEAR = 3e-4


def stamp() -> str:
    """Files in order of name, each as name, zero byte, content, zero byte."""
    digest = hashlib.blake2b(digest_size=32)
    for file in sorted(path for path in HERE.rglob("*") if path.suffix in (".py", ".txt", ".jinja")):
        digest.update(file.relative_to(HERE).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def cases():
    """Name -> (family, fields, how it is saved)."""
    small = dict(hidden_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
                 intermediate_size=112, vocab_size=VOCAB, max_position_embeddings=256, rms_norm_eps=1e-5,
                 rope_theta=10000.0, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, pad_token_id=None)
    yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
    experts = dict(num_experts=8, num_experts_per_tok=3, moe_intermediate_size=40)
    both = ["full_attention", "sliding_attention"] * 2
    gptq = dict(quant_method="gptq", bits=4, group_size=32, desc_act=False, sym=False, checkpoint_format="gptq")
    awq = dict(quant_method="awq", bits=4, group_size=16, zero_point=True, version="gemm")
    fp8 = dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[32, 48])
    channels = dict(quant_method="compressed-tensors", format="float-quantized", ignore=["lm_head", "2.mlp.up_proj"],
                    config_groups=dict(group_0=dict(targets=["Linear"], weights=dict(
                        num_bits=8, type="float", strategy="channel", symmetric=True, dynamic=False))))
    list_of = {
        "llama-tied-wide-heads": ("Llama", dict(tie_word_embeddings=True, head_dim=24), {}),
        "llama-biases": ("Llama", dict(attention_bias=True, mlp_bias=True), {}),
        "llama-as-many-key-heads-f16": ("Llama", dict(num_key_value_heads=4), dict(dtype="float16")),
        "llama-bf16-sharded": ("Llama", {}, dict(dtype="bfloat16", max_shard_size="100KB")),
        "llama-linear": ("Llama", dict(rope_scaling=dict(rope_type="linear", factor=3.0)), {}),
        "llama-llama3": ("Llama", dict(rope_scaling=dict(
            rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=64)), {}),
        "llama-yarn": ("Llama", dict(rope_scaling=yarn), {}),
        "llama-yarn-all-fields": ("Llama", dict(rope_scaling=dict(
            yarn, beta_fast=24.0, beta_slow=2.0, truncate=False, attention_factor=1.3)), {}),
        "llama-yarn-mscale": ("Llama", dict(rope_scaling=dict(yarn, mscale=0.9, mscale_all_dim=0.6)), {}),
        "llama-rope-parameters": ("Llama", dict(rope_theta=5e5, rope_scaling=dict(yarn)),
                                  dict(change="rope_parameters")),
        "llama-prefixed": ("Llama", {}, dict(change="prefix")),
        "llama-unprefixed-tied": ("Llama", dict(tie_word_embeddings=True), dict(change="no prefix")),
        "mistral-window": ("Mistral", dict(sliding_window=16), {}),
        "mistral-no-window-bf16": ("Mistral", dict(sliding_window=None, head_dim=32), dict(dtype="bfloat16")),
        "mixtral": ("Mixtral", dict(num_local_experts=6, num_experts_per_tok=2), {}),
        "mixtral-window-bf16": ("Mixtral", dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=16),
                                dict(dtype="bfloat16")),
        "qwen2-tied-bf16": ("Qwen2", dict(tie_word_embeddings=True, rope_theta=1e6), dict(dtype="bfloat16")),
        "qwen2-window-in-later-layers": ("Qwen2", dict(
            use_sliding_window=True, sliding_window=16, max_window_layers=2), {}),
        "qwen2-yarn": ("Qwen2", dict(rope_scaling=yarn), dict(change="type")),
        "qwen3-tied": ("Qwen3", dict(head_dim=32, tie_word_embeddings=True, rope_theta=1e6), {}),
        "qwen3-window-by-layer-types-biases": ("Qwen3", dict(
            head_dim=16, attention_bias=True, use_sliding_window=True, sliding_window=16, layer_types=both), {}),
        "qwen3-f16": ("Qwen3", dict(head_dim=20), dict(dtype="float16")),
        "qwen3-moe": ("Qwen3Moe", dict(experts, head_dim=32, norm_topk_prob=True), {}),
        "qwen3-moe-some-dense": ("Qwen3Moe", dict(
            experts, head_dim=32, norm_topk_prob=False, decoder_sparse_step=2, mlp_only_layers=[3],
            tie_word_embeddings=True), dict(dtype="bfloat16")),
        "qwen3-moe-window": ("Qwen3Moe", dict(
            experts, head_dim=16, norm_topk_prob=True, use_sliding_window=True, sliding_window=16), {}),
        "llama-gptq-biases": ("Llama", dict(attention_bias=True, mlp_bias=True), dict(pack=dict(gptq))),
        "qwen2-gptq-by-importance": ("Qwen2", {}, dict(pack=dict(gptq, group_size=16, desc_act=True))),
        "llama-gptq-8-one-group-with-head": ("Llama", {}, dict(pack=dict(
            gptq, bits=8, group_size=-1, checkpoint_format="gptq_v2", lm_head=True))),
        "mistral-awq-tied": ("Mistral", dict(tie_word_embeddings=True, sliding_window=None), dict(pack=dict(awq))),
        "qwen3-fp8-blocks": ("Qwen3", dict(head_dim=32), dict(pack=dict(
            fp8, modules_to_not_convert=["lm_head", "model.layers.1.self_attn.k_proj"]))),
        "llama-fp8-channels": ("Llama", {}, dict(pack=channels)),
        "qwen3-moe-gptq-symmetric": ("Qwen3Moe", dict(
            experts, moe_intermediate_size=48, head_dim=32, norm_topk_prob=True), dict(pack=dict(
            gptq, group_size=16, sym=True))),
        "mixtral-fp8": ("Mixtral", dict(num_local_experts=4, num_experts_per_tok=2), dict(pack=dict(
            fp8, modules_to_not_convert=["lm_head", "block_sparse_moe.gate"]))),
    }
    return {name: (family, {**small, **fields}, saved) for name, (family, fields, saved) in list_of.items()}


def randomise(model, torch):
    """Weights at which every part matters: products keep the size of what they multiply, norms and biases vary."""
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(weight, 1.0, 0.2)
        elif name.endswith("bias"):
            torch.nn.init.normal_(weight, 0.0, 0.3)
        elif "embed_tokens" in name and not model.config.tie_word_embeddings:
            torch.nn.init.normal_(weight, 0.0, 1.0)
        elif "embed_tokens" in name or "lm_head" in name:
            torch.nn.init.normal_(weight, 0.0, 0.4 / weight.shape[-1] ** 0.5)
        else:
            torch.nn.init.normal_(weight, 0.0, 0.9 / weight.shape[-1] ** 0.5)


def change(folder: Path, what: str):
    """Spellings that users meet and this version of transformers does not write."""
    from safetensors.torch import load_file, save_file

    config = json.loads((folder / "config.json").read_text())
    weights = folder / "model.safetensors"
    if what == "rope_parameters":
        config["rope_parameters"] = dict(config.pop("rope_scaling"), rope_theta=config.pop("rope_theta"))
    elif what == "type":
        config["rope_scaling"]["type"] = config["rope_scaling"].pop("rope_type")
    elif what == "prefix":
        save_file({f"language_model.{name}": tensor for name, tensor in load_file(weights).items()}, weights)
    elif what == "no prefix":
        save_file({name.removeprefix("model."): tensor for name, tensor in load_file(weights).items()}, weights)
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def greedy(model, prompt, torch):
    """The 128 likeliest continuations, and how close the closest decision was."""
    ids, closest, past = prompt, float("inf"), None
    step = prompt
    for _ in range(ANSWER):
        out = model(step, past_key_values=past, use_cache=True)
        best = out.logits[0, -1].topk(2)
        closest = min(closest, (best.values[0] - best.values[1]).item())
        past, step = out.past_key_values, best.indices[:1].view(1, 1)
        ids = torch.cat([ids, step], 1)
    return ids, closest


ADAPTERS = {
    "llama-biases": {
        "all": dict(r=8, lora_alpha=16, target_modules="all-linear"),
        "some": dict(r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"]),
    },
    "qwen3-tied": {"attention": dict(r=6, lora_alpha=3, rank_pattern={"k_proj": 2},
                                     target_modules=["q_proj", "k_proj", "o_proj"])},
}


def adapt(checkpoint: Path, name, fields, tokens, torch):
    import peft
    import transformers
    from safetensors.torch import save_file

    base = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **fields))
    for key, weight in model.named_parameters():
        # New adapters change nothing: B is zero.
        if "lora_" in key:
            torch.nn.init.normal_(weight, 0.0, 0.6 / weight.shape[-1] ** 0.5)
    folder = checkpoint / "adapters" / name
    model.save_pretrained(folder)
    merged = model.merge_and_unload()
    save_file(dict(logits=merged(tokens).logits[0].contiguous()), folder / "expected.safetensors")


def make(name, family, fields, saved, folder: Path):
    import torch
    import transformers
    from safetensors.torch import save_file

    config = getattr(transformers, f"{family}Config")(**fields)
    torch.manual_seed(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big"))
    model = transformers.AutoModelForCausalLM.from_config(config)
    randomise(model, torch)
    packed = quantise(model, saved["pack"]) if "pack" in saved else {}
    model.to(getattr(torch, saved.get("dtype", "float32")))
    model.save_pretrained(folder, max_shard_size=saved.get("max_shard_size", "1GB"))

    load = lambda dtype: transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    wide = load(torch.float32)
    # Prompts are drawn until no decision is a matter of rounding.
    for _ in range(200):
        tokens, closest = greedy(wide, torch.randint(2, VOCAB, (1, PROMPT)), torch)
        if closest > CLEAR:
            break
    else:
        sys.exit(f"{name}: no prompt without close decisions")
    narrow = load(torch.bfloat16)
    hidden = narrow.model(tokens).last_hidden_state.float()
    bf16 = torch.nn.functional.linear(hidden, narrow.lm_head.weight.float()).log_softmax(-1)
    expected = dict(tokens=tokens[0], logits=wide(tokens).logits[0].contiguous(), bf16=bf16[0].contiguous())
    save_file(expected, folder / "expected.safetensors")
    for adapter, about in ADAPTERS.get(name, {}).items():
        adapt(folder, adapter, about, tokens, torch)
    if "change" in saved:
        change(folder, saved["change"])
    if packed:
        rewrite(folder, packed, saved["pack"])
    return dict(name=name, family=family, stored=saved.get("dtype", "float32"), adapters=list(ADAPTERS.get(name, {})),
                packed="pack" in saved)


def main():
    cache = Path(sys.argv[1])
    final = cache / stamp()
    if not (final / "cases.json").exists():
        os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")
        import torch
        from chats import chats

        torch.set_grad_enabled(False)
        # Threads cost more than they bring at this size.
        torch.set_num_threads(1)
        print("parity: making checkpoints and what transformers computes with them", file=sys.stderr)
        cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=cache))
        made = [make(name, *case, work / name) for name, case in cases().items()]
        (work / "templates.json").write_text(json.dumps(chats(HERE / "templates"), ensure_ascii=False, indent=1))
        (work / "cases.json").write_text(json.dumps(made, indent=1))
        work.chmod(0o755)
        work.rename(final)
        # Other checkouts may be at other versions of this folder; the oldest go.
        versions = sorted((path for path in cache.iterdir() if path != final), key=lambda path: path.stat().st_mtime)
        for old in versions[:-4]:
            shutil.rmtree(old, ignore_errors=True)
    print(final)


if __name__ == "__main__":
    main()
