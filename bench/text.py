"""Scripts in Korean and English, endless and from a seed, that compress like real ones.

A pool of words and phrases is drawn with the frequencies of a language (few are common, most are
rare) and cut at random places; zstd 1 makes 2.6 times less of it in blocks of 64 KiB, 3.0 in
blocks of 1 MiB.
"""

from __future__ import annotations

import numpy as np

POOL_BYTES = 48 << 20
WORDS = 3_000
PHRASES = 6_000
SKEW = 1.1
_ENGLISH = "etaoinshrdlcumwfgypbvkjxqz"
_LEADING = "ㄱㄴㄷㄹㅁㅂㅅㅇㅈㅎ"
_MARKS = (".", ",", "?", "!", "…", "\n\n장면 ", "\nINT. ", "\n(pause)\n")


class Prose:
    """Text by the piece. Equal seeds give equal texts."""

    def __init__(self, seed: int, pool_bytes: int = POOL_BYTES) -> None:
        self._random = np.random.default_rng(seed)
        words = self._words()
        drawn = self._draw(words, 4 * PHRASES)
        phrases = [" ".join(drawn[at : at + 4]) for at in range(0, len(drawn), 4)]
        self._pool = " ".join(self._draw([*words, *phrases], pool_bytes // 7)).encode()
        self._pool = self._pool[:pool_bytes]

    def _draw(self, words: list[str], count: int) -> list[str]:
        weights = 1 / np.arange(1, len(words) + 1, dtype=np.float64) ** SKEW
        chosen = self._random.choice(len(words), size=count, p=weights / weights.sum())
        return [words[number] for number in chosen]

    def _words(self) -> list[str]:
        words = list(_MARKS)
        for number in range(WORDS):
            if number % 2:
                length = 1 + int(self._random.integers(1, 4))
                syllables = self._random.integers(0, 11_172, size=length)
                words.append("".join(chr(0xAC00 + int(s)) for s in syllables))
            else:
                length = 1 + int(self._random.integers(1, 9))
                letters = np.minimum(self._random.geometric(0.11, size=length) - 1, 25)
                words.append("".join(_ENGLISH[int(letter)] for letter in letters))
        return words

    def piece(self, length: int) -> str:
        """About `length` bytes of text, from anywhere."""
        start = int(self._random.integers(0, max(1, len(self._pool) - length)))
        return self._pool[start : start + length].decode("utf-8", "ignore")

    def size(self, mean: float) -> int:
        """A length that is mostly smaller than the mean and sometimes much larger."""
        return max(40, int(self._random.gamma(1.6, mean / 1.6)))
