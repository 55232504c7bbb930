"""A tiny random BERT for tests that train."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads and wait for them on a busy machine; and sums keep their order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """The helpers of ``tiny_training.py``, which is a program and not an importable module."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_training.py"))))


@pytest.fixture(scope="session")
def tiny_folder(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = small.build_tiny_bert(tmp_path_factory.mktemp("tiny-bert"))
    return folder


@pytest.fixture
def tiny(tiny_folder: Path) -> Callable[[], SentenceTransformer]:
    """Loads the model anew on every call."""

    def load() -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(tiny_folder), device="cpu")

    return load
