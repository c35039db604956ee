"""Hugging Face transformers in a process of its own: cases come in on stdin, one a line, measurements go out as JSON.

The cases are those of `pacer-engine bench` (decode:BATCH:TOKENS, prefill:TOKENS), timed in the same way. Greedy steps of
the model with its cache, written out here: `generate` does the same and more beside it. `logits:ID,ID,...` tells what the
model makes of these tokens, all but the last at once and the last through the cache: peers are compared by it.
"""
import argparse
import json
import sys
import time

import torch
import transformers

SHORT_PROMPT = 32


class Bench:
    def __init__(self, folder, dtype):
        transformers.logging.set_verbosity_error()
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
        # Out of the file's pages into memory of its own, which may lie in huge pages as everybody else's does.
        seen = {}
        for parameter in self.model.parameters():
            parameter.data = seen.setdefault(parameter.data_ptr(), parameter.data.clone())
        self.model.tie_weights()
        self.draw = torch.Generator().manual_seed(20261121)

    def prompts(self, batch, tokens):
        return torch.randint(0, self.model.config.vocab_size, (batch, tokens), generator=self.draw)

    def step(self, ids, cache):
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values

    def decode(self, batch, tokens):
        ids, cache = self.step(self.prompts(batch, SHORT_PROMPT), None)
        began = time.perf_counter()
        for _ in range(tokens - 1):
            ids, cache = self.step(ids, cache)
        seconds, counted = time.perf_counter() - began, batch * (tokens - 1)
        return {"tokens_per_s": counted / seconds, "tokens": counted, "seconds": seconds}

    def prefill(self, tokens):
        began = time.perf_counter()
        self.step(self.prompts(1, tokens), None)
        seconds = time.perf_counter() - began
        return {"tokens_per_s": tokens / seconds, "tokens": tokens, "seconds": seconds}

    def logits(self, ids):
        ids = torch.tensor([ids])
        cache = self.model(input_ids=ids[:, :-1], use_cache=True).past_key_values
        row = self.model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True).logits[0, -1].float()
        return {"logits": row[:: len(row) // 256].tolist()}

    def measure(self, case):
        kind, *numbers = case.split(":")
        if kind == "logits":
            return self.logits([int(number) for number in numbers[0].split(",")])
        return {"decode": self.decode, "prefill": self.prefill}[kind](*map(int, numbers))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", choices=["bf16", "f32"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        bench = Bench(args.model, {"bf16": torch.bfloat16, "f32": torch.float32}[args.dtype])
        bench.decode(2, 4)
        print(json.dumps({"ready": True, "version": transformers.__version__}), flush=True)
        for line in sys.stdin:
            case = line.strip()
            try:
                found = bench.measure(case)
            except Exception as error:  # whatever it is, it is this case's line
                found = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps({"case": case, **found}), flush=True)


main()
