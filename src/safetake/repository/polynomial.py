"""The chunker polynomial that the config must name, for stock restic to cut its own files
with.

A random irreducible polynomial of degree 53 over GF(2), as bits of an integer; Rabin's test.
"""

from __future__ import annotations

import secrets

DEGREE = 53


def _mod(a: int, b: int) -> int:
    size = b.bit_length()
    while (length := a.bit_length()) >= size:
        a ^= b << (length - size)
    return a


def _mul_mod(a: int, b: int, modulus: int) -> int:
    result = 0
    while b:
        if b & 1:
            result ^= a
        b >>= 1
        a = _mod(a << 1, modulus)
    return _mod(result, modulus)


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, _mod(a, b)
    return a


def irreducible(polynomial: int) -> bool:
    """Whether a polynomial of degree 53 (a prime) has no factor.

    Rabin: x^(2^53) = x mod p, and gcd(x^2 - x, p) = 1 for the one prime divisor of 53.
    """
    if polynomial.bit_length() - 1 != DEGREE:
        return False
    power = 2
    for _ in range(DEGREE):
        power = _mul_mod(power, power, polynomial)
    return power == 2 and _gcd(polynomial, 0b110) == 1


def random_polynomial() -> int:
    """A fresh one; about one in 53 candidates is irreducible."""
    while True:
        candidate = secrets.randbits(DEGREE + 1) | (1 << DEGREE) | 1
        if irreducible(candidate):
            return candidate
