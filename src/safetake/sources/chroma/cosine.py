"""Vectors of a cosine space, so that a restored one is given back bit for bit.

Chroma keeps a cosine vector divided by its length, and multiplies again when it is asked: what it
gives back is not what it was given (up to 2 units in the last place off), and giving it that again
drifts further. Its arithmetic is single precision, one addition after the other (hnswlib's
`normalize_vector`; equal bit for bit in 600 measured vectors of 1.5.9), so a vector can be found
that it will keep as the old one was kept. Arrays are float32, one vector a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TINY = 1e-30
_STEPS = 3
"""Units in the last place, each way, in which the number is looked for."""
_TRIES = 500


def kept(
    vectors: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What Chroma keeps of them: unit vectors and lengths."""
    import numpy as np

    squares = np.cumsum(vectors * vectors, axis=1, dtype=np.float32)
    lengths = np.sqrt(squares[:, -1])
    return vectors * _inverse(lengths)[:, None], lengths


def given_back(units: NDArray[np.float32], lengths: NDArray[np.float32]) -> NDArray[np.float32]:
    """What Chroma answers when it is asked for them."""
    return units * lengths[:, None]


def to_be_kept(units: NDArray[np.float32], lengths: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of which Chroma keeps exactly these; one that is given back close where none is
    found."""
    import numpy as np

    found = given_back(units, lengths)
    for row in range(len(units)):
        exact = _search(units[row], lengths[row])
        if exact is not None:
            found[row] = exact
    return np.ascontiguousarray(found, np.float32)


def to_be_given_back(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors for which Chroma gives back exactly `vectors`, as far as there are any."""
    import numpy as np

    again, found = given_back(*kept(vectors)), vectors.copy()
    for row in np.flatnonzero((again != vectors).any(axis=1)):
        length = np.sqrt(np.cumsum(vectors[row] * vectors[row], dtype=np.float32)[-1:])
        for step in (0, 1, -1, 2, -2, 3, -3):
            near = _ulps_away(length, step)[0]
            if (exact := _search(vectors[row], near, back=True)) is not None:
                found[row] = exact
                break
    return found


def ulps(one: NDArray[np.float32], other: NDArray[np.float32]) -> int:
    """The largest distance in units in the last place between numbers of equal sign."""
    import numpy as np

    if not one.size:
        return 0
    wide = one.view(np.int32).astype(np.int64) - other.view(np.int32)
    return int(np.abs(wide).max())


def _inverse(lengths: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    return np.float32(1) / (lengths + np.float32(_TINY))


def _ulps_away(numbers: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    import numpy as np

    return (numbers.view(np.int32) + np.int32(step)).view(np.float32)


def _search(
    wanted: NDArray[np.float32], length: np.float32, *, back: bool = False
) -> NDArray[np.float32] | None:
    """A vector of this length of which Chroma keeps `wanted`, or gives it `back`."""
    import numpy as np

    inverse = _inverse(np.array([length], np.float32))[0]
    times = np.float64(1 if back else length)
    middle = (wanted.astype(np.float64) * times).astype(np.float32)
    steps = sorted(range(-_STEPS, _STEPS + 1), key=abs)
    choices = np.stack([_ulps_away(middle, step) for step in steps])
    fits = (choices * inverse * length if back else choices * inverse) == wanted
    if not fits.any(axis=0).all():
        return None
    columns = np.arange(len(wanted))
    nearest = choices[fits.argmax(axis=0), columns]
    sizes = np.abs(choices)
    largest = choices[np.where(fits, sizes, -np.inf).argmax(axis=0), columns]
    smallest = choices[np.where(fits, -sizes, -np.inf).argmax(axis=0), columns]
    random = np.random.default_rng(1)
    picked = nearest
    for _ in range(_TRIES):
        now = np.sqrt(np.cumsum(picked * picked, dtype=np.float32)[-1])
        if now == length:
            return np.asarray(picked, np.float32)
        # a random part of the numbers becomes larger, or smaller, as the length needs it
        base = nearest if random.random() < 0.2 else picked
        chosen = random.random(len(wanted)) < random.random() ** 4
        picked = np.where(chosen, largest if now < length else smallest, base)
    return None
