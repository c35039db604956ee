"""The beacon's protocol, written from docs/randomness.md: an oracle for the crate. Needs only Python's standard library."""

from fractions import Fraction
from hashlib import blake2b

from merlin import Transcript
from ristretto import G, IDENTITY, ORDER, Point


def hash256(data):
    return blake2b(data, digest_size=32).digest()


def le32(number):
    return number.to_bytes(4, "little")


def encode_scalar(scalar):
    return (scalar % ORDER).to_bytes(32, "little")


def seats(weights, slots):
    """D'Hondt among the 64 heaviest; weights are pairs (host, weight)."""
    members = sorted((w for w in weights if w[1] > 0), key=lambda w: (-w[1], w[0]))[:64]
    given = {host: 0 for host, _ in members}
    for _ in range(slots if members else 0):
        host = min(members, key=lambda w: (-Fraction(w[1], given[w[0]] + 1), w[0]))[0]
        given[host] += 1
    return [given.get(host, 0) for host, _ in weights]


def challenge(transcript, label):
    return int.from_bytes(transcript.challenge(label, 64), "little") % ORDER


def weights_of(transcript, count):
    data = transcript.challenge(b"weights", 16 * count)
    return [int.from_bytes(data[i : i + 16], "little") for i in range(0, 16 * count, 16)]


def of_key(label, genesis, epoch, host):
    transcript = Transcript(label)
    transcript.append(b"genesis", genesis)
    transcript.append(b"epoch", le32(epoch))
    transcript.append(b"host", host)
    return transcript


def secret_stream(public, secret):
    stream = Transcript(b"pacer/beacon/v1/secret")
    stream.append(b"secret", secret)
    stream.append(b"binding", public.clone().challenge(b"binding", 32))
    return stream


class Key:
    def __init__(self, seed, genesis, epoch, host):
        self.scope = (genesis, epoch, host)
        self.secret = challenge(secret_stream(of_key(b"pacer/beacon/v1/key", *self.scope), seed), b"key")
        self.point = G * self.secret
        self.public = self.point.encode()

    def nonce(self, statement):
        return challenge(secret_stream(statement, encode_scalar(self.secret)), b"nonce")

    def proof(self):
        statement = of_key(b"pacer/beacon/v1/key-proof", *self.scope)
        statement.append(b"key", self.public)
        nonce = self.nonce(statement)
        statement.append(b"announcement", (G * nonce).encode())
        c = challenge(statement, b"challenge")
        return encode_scalar(c) + encode_scalar(nonce + c * self.secret)


def verify_key(genesis, epoch, host, public, proof):
    c, z = (int.from_bytes(proof[i : i + 32], "little") for i in (0, 32))
    statement = of_key(b"pacer/beacon/v1/key-proof", genesis, epoch, host)
    statement.append(b"key", public)
    statement.append(b"announcement", (G * z + -(Point.decode(public) * c)).encode())
    assert public != bytes(32) and challenge(statement, b"challenge") == c


class Committee:
    """seats: (host, slots, public key or None), ascending by host."""

    def __init__(self, seats, threshold):
        self.threshold, self.slots, first = threshold, {}, 1
        data = b"pacer/beacon/v1/committee" + le32(threshold)
        for host, slots, key in seats:
            data += host + le32(slots) + (key or bytes(32))
            self.slots[host] = (range(first, first + slots), key)
            first += slots
        self.digest = hash256(data)

    def live(self):
        """(slot, host, public key) of each live slot."""
        return [(slot, host, key) for host, (slots, key) in self.slots.items() if key for slot in slots]


class Context:
    def __init__(self, genesis, epoch, which):
        self.genesis, self.epoch, self.which = genesis, epoch, which

    def statement(self, label, committee, host):
        transcript = of_key(label, self.genesis, self.epoch, host)
        transcript.append(b"value", self.which)
        transcript.append(b"committee", committee.digest)
        return transcript

    def deal(self, committee, dealer, seed):
        def encrypt(polynomial):
            data = b""
            for slot, _, key in committee.live():
                value = sum(c * slot**k for k, c in enumerate(polynomial))
                data += (Point.decode(key) * value).encode()
            return data

        statement = self.statement(b"pacer/beacon/v1/dealing", committee, dealer)
        stream = secret_stream(statement, seed)
        secret = [challenge(stream, b"coefficient") for _ in range(committee.threshold)]
        shares = encrypt(secret)
        statement.append(b"shares", shares)
        stream = secret_stream(statement, seed)
        mask = [challenge(stream, b"coefficient") for _ in range(committee.threshold)]
        announcements = encrypt(mask)
        statement.append(b"announcements", announcements)
        e = challenge(statement, b"challenge")
        response = b"".join(encode_scalar(r + e * p) for r, p in zip(mask, secret))
        return shares + announcements + response, secret[0]

    def verify_dealing(self, committee, dealer, dealing):
        """Slot by slot, without the weights that the crate uses."""
        live = committee.live()
        words = [dealing[i : i + 32] for i in range(0, len(dealing), 32)]
        shares, announcements, response = words[: len(live)], words[len(live) : 2 * len(live)], words[2 * len(live) :]
        assert len(response) == committee.threshold
        statement = self.statement(b"pacer/beacon/v1/dealing", committee, dealer)
        statement.append(b"shares", b"".join(shares))
        statement.append(b"announcements", b"".join(announcements))
        e = challenge(statement, b"challenge")
        z = [int.from_bytes(word, "little") for word in response]
        for (slot, _, key), c, a in zip(live, shares, announcements):
            left = Point.decode(key) * sum(z_k * slot**k for k, z_k in enumerate(z))
            assert left.encode() == (Point.decode(a) + Point.decode(c) * e).encode()

    def open(self, committee, total, host, key):
        """total: the sum's bytes."""
        at = [i for i, (_, owner, _) in enumerate(committee.live()) if owner == host]
        sums = [total[32 * i : 32 * i + 32] for i in at]
        points = [Point.decode(word) * pow(key.secret, -1, ORDER) for word in sums]
        shares = b"".join(point.encode() for point in points)
        statement = self.statement(b"pacer/beacon/v1/opening", committee, host)
        statement.append(b"key", key.public)
        statement.append(b"sums", b"".join(sums))
        statement.append(b"shares", shares)
        joined = IDENTITY
        for weight, point in zip(weights_of(statement, len(at)), points):
            joined = joined + point * weight
        nonce = key.nonce(statement)
        statement.append(b"announcement-key", (G * nonce).encode())
        statement.append(b"announcement-shares", (joined * nonce).encode())
        c = challenge(statement, b"challenge")
        return shares + encode_scalar(c) + encode_scalar(nonce + c * key.secret)

    def verify_opening(self, committee, total, host, opening):
        at = [i for i, (_, owner, _) in enumerate(committee.live()) if owner == host]
        key, sums = committee.slots[host][1], [total[32 * i : 32 * i + 32] for i in at]
        shares = [opening[32 * i : 32 * i + 32] for i in range(len(at))]
        c, z = (int.from_bytes(opening[-64:][i : i + 32], "little") for i in (0, 32))
        assert len(opening) == 32 * len(at) + 64
        statement = self.statement(b"pacer/beacon/v1/opening", committee, host)
        statement.append(b"key", key)
        statement.append(b"sums", b"".join(sums))
        statement.append(b"shares", b"".join(shares))
        announcement = IDENTITY
        for weight, share, encrypted in zip(weights_of(statement, len(at)), shares, sums):
            announcement = announcement + Point.decode(share) * (z * weight) + -(Point.decode(encrypted) * (c * weight))
        statement.append(b"announcement-key", (G * z + -(Point.decode(key) * c)).encode())
        statement.append(b"announcement-shares", announcement.encode())
        assert challenge(statement, b"challenge") == c

    def value(self, dealings, secret):
        """dealings: (dealer, bytes)."""
        chosen = hash256(b"".join(dealer + hash256(dealing) for dealer, dealing in sorted(dealings)))
        return hash256(b"pacer/beacon/v1" + self.genesis + le32(self.epoch) + self.which + chosen + secret)


def add(dealings, live):
    """The sum's bytes."""
    data = b""
    for i in range(live):
        point = IDENTITY
        for dealing in dealings:
            point = point + Point.decode(dealing[32 * i : 32 * i + 32])
        data += point.encode()
    return data


def interpolate(shares):
    """shares: (slot, bytes), exactly as many as the threshold."""
    point = IDENTITY
    for own, share in shares:
        factor = 1
        for other, _ in shares:
            if other != own:
                factor = factor * other * pow(other - own, -1, ORDER) % ORDER
        point = point + Point.decode(share) * factor
    return point.encode()
