"""Shared by all tests: a cache of their own, and the path of the real collections."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def test_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache folder for the whole session, so that no test reads or fills the user's."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session", autouse=True)
def _isolated(test_home: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKSAGA_HOME", str(test_home))
        patch.delenv("RANKSAGA_DATASETS", raising=False)
        yield


@pytest.fixture(scope="session")
def shared_datasets() -> Path:
    """Folder of the real collections; the test is skipped where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "datasets"
    if not folder.is_dir():
        pytest.skip(f"the real collections are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def families() -> SimpleNamespace:
    """The builders of ``tiny_families.py``."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_families.py"))))
