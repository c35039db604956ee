"""ristretto255 (RFC 9496) on Python's integers: slow, not constant time, written from the RFC and not from the crate."""

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def negative(n):
    return n % P & 1


def absolute(n):
    n %= P
    return P - n if n & 1 else n


def sqrt_ratio(u, v):
    """Whether u/v is a square, and the non-negative root of it or of i u/v."""
    r = u * v**3 * pow(u * pow(v, 7, P) % P, (P - 5) // 8, P) % P
    check = v * r * r % P
    if check in (-u % P, -u * SQRT_M1 % P):
        r = r * SQRT_M1 % P
    return check in (u % P, -u % P), absolute(r)


INVSQRT_A_MINUS_D = sqrt_ratio(1, (-1 - D) % P)[1]


class Point:
    """An element of the group: any of the curve's points that stand for it, in extended coordinates."""

    def __init__(self, x, y, z, t):
        self.x, self.y, self.z, self.t = x % P, y % P, z % P, t % P

    def __add__(self, other):
        a = (self.y - self.x) * (other.y - other.x)
        b = (self.y + self.x) * (other.y + other.x)
        c = 2 * D * self.t * other.t
        d = 2 * self.z * other.z
        e, f, g, h = b - a, d - c, d + c, b + a
        return Point(e * f, g * h, f * g, e * h)

    def __neg__(self):
        return Point(-self.x, self.y, self.z, -self.t)

    def __mul__(self, scalar):
        scalar %= ORDER
        result, power = IDENTITY, self
        while scalar:
            if scalar & 1:
                result = result + power
            power = power + power
            scalar >>= 1
        return result

    def encode(self):
        u1 = (self.z + self.y) * (self.z - self.y) % P
        u2 = self.x * self.y % P
        root = sqrt_ratio(1, u1 * u2 * u2 % P)[1]
        den1, den2 = root * u1 % P, root * u2 % P
        z_inv = den1 * den2 * self.t % P
        x, y, den_inv = self.x, self.y, den2
        if negative(self.t * z_inv):
            x, y, den_inv = self.y * SQRT_M1 % P, self.x * SQRT_M1 % P, den1 * INVSQRT_A_MINUS_D % P
        if negative(x * z_inv):
            y = -y
        return absolute(den_inv * (self.z - y)).to_bytes(32, "little")

    @staticmethod
    def decode(data):
        s = int.from_bytes(data, "little")
        if len(data) != 32 or s >= P or negative(s):
            raise ValueError("not canonical")
        u1, u2 = (1 - s * s) % P, (1 + s * s) % P
        v = (-(D * u1 * u1) - u2 * u2) % P
        square, root = sqrt_ratio(1, v * u2 * u2 % P)
        den_x = root * u2 % P
        x, y = absolute(2 * s * den_x), u1 * root * den_x * v % P
        if not square or negative(x * y) or y == 0:
            raise ValueError("not a point")
        return Point(x, y, 1, x * y)


IDENTITY = Point(0, 1, 1, 0)


def base():
    y = 4 * pow(5, -1, P) % P
    x = absolute(sqrt_ratio((y * y - 1) % P, (D * y * y + 1) % P)[1])
    return Point(x, y, 1, x * y)


G = base()
# RFC 9496, appendix A.1: the generator and sixteen times zero.
assert G.encode().hex() == "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76"
assert (G + G).encode().hex() == "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919"
assert (G * ORDER).encode() == bytes(32) and Point.decode(G.encode()).encode() == G.encode()
