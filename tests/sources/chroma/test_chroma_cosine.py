"""Cosine vectors: what is sent is kept, or given back, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetake.sources.chroma.cosine import given_back, kept, to_be_given_back, to_be_kept, ulps


@settings(deadline=None, max_examples=40)
@given(
    st.integers(2, 400), st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.sampled_from([0, 0.3])
)
def test_what_is_sent_is_kept_as_the_old_one_was(
    dimension: int, seed: int, size: float, zeros: float
) -> None:
    random = np.random.default_rng(seed)
    vectors = (random.standard_normal((5, dimension)) * size).astype(np.float32)
    vectors[random.random(vectors.shape) < zeros] = 0
    units, lengths = kept(vectors)
    again = kept(to_be_kept(units, lengths))
    assert ulps(again[0], units) == 0
    assert ulps(again[1], lengths) == 0
    seen = given_back(units, lengths)
    assert ulps(given_back(*kept(to_be_given_back(seen))), seen) <= 2


@pytest.mark.parametrize("dimension", [2, 16, 384, 1536])
def test_what_is_sent_is_given_back_as_the_old_one_was(dimension: int) -> None:
    random = np.random.default_rng(dimension)
    vectors = (random.standard_normal((300, dimension)) * 9).astype(np.float32)
    seen = given_back(*kept(vectors))
    assert ulps(given_back(*kept(to_be_given_back(seen))), seen) == 0


def test_the_naive_way_drifts() -> None:
    """Sending what was given back changes it (control)."""
    vectors = np.random.default_rng(1).standard_normal((200, 100)).astype(np.float32)
    seen = given_back(*kept(vectors))
    again = given_back(*kept(seen))
    assert 0 < ulps(again, seen) <= 4


@pytest.mark.parametrize("vector", [[0.0, 0.0, 0.0], [0.0, 0.0, 3.0], [1e-20, 1.0, -1e15]])
def test_odd_vectors_are_no_error(vector: list[float]) -> None:
    one = np.array([vector], np.float32)
    units, lengths = kept(one)
    if np.isfinite(lengths).all():
        again = kept(to_be_kept(units, lengths))
        assert ulps(again[0], units) == 0
    to_be_given_back(one)
