"""Merlin transcripts over STROBE-128 and Keccak-f[1600], from their specifications (merlin.cool, strobe.sourceforge.io,
FIPS 202): only what the beacon needs, which is absorbing messages and squeezing challenges."""

MASK = 2**64 - 1
RATE = 166
FLAG_I, FLAG_A, FLAG_C, FLAG_M = 1, 2, 4, 16


def rotate(lane, by):
    by %= 64
    return (lane << by | lane >> (64 - by)) & MASK if by else lane


def round_constants():
    """From the LFSR of FIPS 202, 3.2.5."""
    register, constants = 1, []
    for _ in range(24):
        constant = 0
        for j in range(7):
            if register & 1:
                constant |= 1 << (2**j - 1)
            register = register << 1 ^ (0x171 if register & 0x80 else 0)
        constants.append(constant)
    return constants


CONSTANTS = round_constants()
assert CONSTANTS[1] == 0x8082 and CONSTANTS[23] == 0x8000000080008008


def keccak(state):
    lanes = [int.from_bytes(state[i : i + 8], "little") for i in range(0, 200, 8)]
    for constant in CONSTANTS:
        columns = [lanes[x] ^ lanes[x + 5] ^ lanes[x + 10] ^ lanes[x + 15] ^ lanes[x + 20] for x in range(5)]
        for x in range(5):
            d = columns[x - 1] ^ rotate(columns[(x + 1) % 5], 1)
            for y in range(0, 25, 5):
                lanes[x + y] ^= d
        x, y, lane = 1, 0, lanes[1]
        for step in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            lanes[x + 5 * y], lane = rotate(lane, (step + 1) * (step + 2) // 2), lanes[x + 5 * y]
        for y in range(0, 25, 5):
            row = lanes[y : y + 5]
            for x in range(5):
                lanes[x + y] = row[x] ^ (~row[(x + 1) % 5] & MASK & row[(x + 2) % 5])
        lanes[0] ^= constant
    return bytearray(b"".join(lane.to_bytes(8, "little") for lane in lanes))


class Transcript:
    def __init__(self, label):
        self.state = bytearray(200)
        self.state[0:6] = bytes([1, RATE + 2, 1, 0, 1, 96])
        self.state[6:18] = b"STROBEv1.0.2"
        self.state = keccak(self.state)
        self.position, self.begin = 0, 0
        self.operate(FLAG_M | FLAG_A)
        self.absorb(b"Merlin v1.0")
        self.append(b"dom-sep", label)

    def clone(self):
        other = object.__new__(Transcript)
        other.state, other.position, other.begin = bytearray(self.state), self.position, self.begin
        return other

    def permute(self):
        self.state[self.position] ^= self.begin
        self.state[self.position + 1] ^= 0x04
        self.state[RATE + 1] ^= 0x80
        self.state = keccak(self.state)
        self.position, self.begin = 0, 0

    def absorb(self, data):
        for byte in data:
            self.state[self.position] ^= byte
            self.position += 1
            if self.position == RATE:
                self.permute()

    def operate(self, flags):
        begin, self.begin = self.begin, self.position + 1
        self.absorb(bytes([begin, flags]))
        if flags & FLAG_C and self.position:
            self.permute()

    def label(self, label, length):
        self.operate(FLAG_M | FLAG_A)
        self.absorb(label + length.to_bytes(4, "little"))

    def append(self, label, message):
        self.label(label, len(message))
        self.operate(FLAG_A)
        self.absorb(message)

    def challenge(self, label, length):
        self.label(label, length)
        self.operate(FLAG_I | FLAG_A | FLAG_C)
        out = bytearray()
        for _ in range(length):
            out.append(self.state[self.position])
            self.state[self.position] = 0
            self.position += 1
            if self.position == RATE:
                self.permute()
        return bytes(out)


# Merlin's own test vector for a simple transcript.
_test = Transcript(b"test protocol")
_test.append(b"some label", b"some data")
assert _test.challenge(b"challenge", 32).hex() == "d5a21972d0d5fe320c0d263fac7fffb8145aa640af6e9bca177c03c7efcf0615"
