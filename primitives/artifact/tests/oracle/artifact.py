"""The artifact that `tests/golden.rs` builds, encoded by hand. Prints the line of it in `golden/sampler.txt`."""
import hashlib
import struct


def artifact_bytes():
    real = lambda v: struct.pack("<d", v)
    compact = lambda n: struct.pack("<B", n << 2) if n < 64 else struct.pack("<H", n << 2 | 1)
    token = lambda i: struct.pack("<I", i)[:3]
    entry = lambda i, lp: token(i) + struct.pack("<H", min(65535, round(-1024 * lp)))
    top = b"".join(entry(i, lp) for i, lp in ((11, -0.5), (70000, -1.25), (3, -4.0), (5, -8.5), (6, -70.0)))
    out = b"\x01" + b"\x11" * 32 + b"\x22" * 32 + b"\x01" + b"\x33" * 32 + b"\x44" * 32 + b"\x55" * 32
    out += struct.pack("<I", 1) + compact(4) + b"demo" + b"\x66" * 32
    out += bytes([0, 0, 0, 1])  # CPU, f32 weights, f32 cache, fused attention
    out += real(0.7) + real(0.9) + b"\x01" + struct.pack("<I", 40) + real(0.0) + real(1.1) + real(0.0) + real(0.25)
    out += compact(1) + token(9) + real(-1.5)
    out += b"\x00" + compact(1) + compact(2) + token(4) + token(5)
    out += struct.pack("<II", 0, 100) + compact(1) + compact(2) + b"\n\n" + compact(0) + b"\x00" + b"\x00"
    out += b"\x01" + struct.pack("<q", -5)
    out += compact(70) + b"".join(token(i) for i in range(70))
    out += compact(2) + b"\x01" + top + b"\xff" + entry(900, -11.0) + top
    return out + b"\x03"


if __name__ == "__main__":
    encoded = artifact_bytes()
    print(f"artifact len={len(encoded)} hash={hashlib.blake2b(encoded, digest_size=32).hexdigest()}")
