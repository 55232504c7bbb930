"""Shared by all tests: a cache of their own, and the path of the real collections."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache folder for the whole session, so that no test reads or fills the user's."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, test_home: Path) -> None:
    monkeypatch.setenv("RANKSAGA_HOME", str(test_home))
    monkeypatch.delenv("RANKSAGA_DATASETS", raising=False)


@pytest.fixture(scope="session")
def shared_datasets() -> Path:
    """Folder of the real collections; the test is skipped where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "datasets"
    if not folder.is_dir():
        pytest.skip(f"the real collections are not at {folder}")
    return folder
