"""A float transformer of a Sprint preset's shape, as fast as plain PyTorch makes it: what the race is compared with.

The same matrices (q, k, v, o, gate, up, down, output), the same positions, causal attention, and nothing computed that
nobody reads: the last layer works on the last position alone (but q at position 0, 2.5% of `bench`, is computed: cutting
it out of the product costs more). bf16, weights resident, inputs given. What the race does
besides, the float side is spared: deriving inputs, the permutation, the verdict. With `norm` there is an RMSNorm before
attention and before the FFN, as in every language model; without, a little less work than any of them does.
"""
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F


class Shape(NamedTuple):
    """Layers, model width, heads, head width, FFN width, output width, positions."""

    L: int
    d: int
    H: int
    h: int
    F: int
    V: int
    S: int


PRESETS = {
    "dev": Shape(4, 64, 4, 16, 256, 256, 4),
    "bench": Shape(16, 512, 16, 64, 2048, 8192, 4),
    "whitepaper": Shape(64, 512, 128, 88, 8192, 8192, 4),
    "wide": Shape(22, 2048, 16, 128, 5632, 8192, 4),
}
# Nonces a pass, and how attention over four positions is written: which is fastest depends on the machine.
BATCHES = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
ATTENTION = ["sdpa", "matmul"]


class FloatTransformer:
    """Random weights of one shape on one device."""

    def __init__(self, preset, device):
        self.c, self.device = PRESETS[preset], torch.device(device)
        c, a = self.c, self.c.H * self.c.h
        torch.manual_seed(1)
        # q, k and v side by side, gate and up side by side: one product each.
        self.layers = [
            dict(qkv=self.weights(3 * a, c.d), o=self.weights(c.d, a), gate_up=self.weights(2 * c.F, c.d), down=self.weights(c.d, c.F))
            for _ in range(c.L)
        ]
        self.out = self.weights(c.V, c.d)
        self.gain = torch.ones(c.d, dtype=torch.bfloat16, device=self.device)
        self.causal = torch.full((c.S, c.S), float("-inf"), device=self.device, dtype=torch.bfloat16).triu(1)

    def weights(self, rows, columns):
        # Small and without a mean, so that nothing grows beyond bounds even without norms.
        w = torch.randint(-8, 8, (rows, columns), dtype=torch.int8, device=self.device)
        return (w.to(torch.bfloat16) + 0.5) * (0.25 / 4.6 / columns**0.5)

    def attention(self, q, k, v, how):
        if how == "sdpa":
            return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)
        scores = q @ k.transpose(2, 3) * self.c.h**-0.5
        return torch.softmax(scores + self.causal if q.shape[2] > 1 else scores, -1) @ v

    def forward(self, x, how, norm):
        """Outputs (nonces x V) of inputs (nonces x positions x d)."""
        c, a = self.c, self.c.H * self.c.h
        before = (lambda x: F.rms_norm(x, (c.d,), self.gain)) if norm else (lambda x: x)
        for index, w in enumerate(self.layers):
            n = before(x)
            heads = lambda y: y.unflatten(-1, (-1, c.h)).transpose(1, 2)
            if index + 1 < c.L:
                q, k, v = (heads(y) for y in F.linear(n, w["qkv"]).split(a, -1))
            else:
                q = heads(F.linear(n[:, -1:], w["qkv"][:a]))
                k, v = (heads(y) for y in F.linear(n, w["qkv"][a:]).split(a, -1))
                x = x[:, -1:]
            x = x + F.linear(self.attention(q, k, v, how).transpose(1, 2).flatten(2), w["o"])
            gate, up = F.linear(before(x), w["gate_up"]).split(c.F, -1)
            x = x + F.linear(F.silu(gate).mul_(up), w["down"])
        return F.linear(x[:, -1], self.out)

    def nonces_per_s(self, batch, how, norm, seconds):
        """Measures for about so long, at least two passes."""
        x = torch.randn(batch, self.c.S, self.c.d, dtype=torch.bfloat16, device=self.device)
        with torch.inference_mode():
            if not torch.isfinite(self.forward(x, how, norm)).all():
                raise ValueError("the float transformer overflowed: its time means nothing")
            self.wait()
            passes, started = 0, time.perf_counter()
            while passes < 2 or time.perf_counter() - started < seconds:
                self.forward(x, how, norm)
                passes += 1
                self.wait()
            return passes * batch / (time.perf_counter() - started)

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def tune(self, norm, seconds=1.0):
        """The fastest way of attention and batch size, by trying; larger batches until they stop paying."""
        best = (0.0, None, None)
        for how in ATTENTION:
            worse = 0
            for batch in BATCHES:
                rate = self.nonces_per_s(batch, how, norm, seconds)
                worse = 0 if rate > best[0] else worse + 1
                best = max(best, (rate, batch, how), key=lambda t: t[0])
                # Twice as large would take twice as long and be no better.
                if worse == 2 or batch / rate > 2:
                    break
        return best[1], best[2]
