"""The set-up in which jobs run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.jobs import Place, copy_place, make_place


@pytest.fixture(scope="session")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("jobs") / "place")


@pytest.fixture
def place(_place: Place, tmp_path: Path) -> Place:
    """A folder with two stores and an empty repository, of this test alone."""
    return copy_place(_place, tmp_path / "place")
