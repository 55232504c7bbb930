from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ranksaga.data import resolve
from ranksaga.data.beir import write_beir
from ranksaga.data.dataset import Dataset, Queries
from ranksaga.data.resolve import Available, available, load_dataset, locate
from ranksaga.errors import DataError, DownloadError


def marked(tiny: Dataset, mark: str) -> Dataset:
    return Dataset("tiny", tiny.corpus, Queries(tiny.queries.ids, (mark, mark, mark)), tiny.qrels)


@pytest.fixture
def everywhere(tiny: Dataset, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The same name in each place, from the first that counts to the last."""
    places = {
        "here": tmp_path / "work" / "tiny",
        "first": tmp_path / "first" / "tiny",
        "second": tmp_path / "second" / "tiny",
        "datasets": tmp_path / "work" / "datasets" / "tiny",
        "cache": home / "datasets" / "tiny",
    }
    for mark, path in places.items():
        write_beir(marked(tiny, mark), path)
    monkeypatch.setenv("RANKSAGA_DATASETS", f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    return places


def test_the_order_of_places(everywhere: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(resolve, "_is_downloadable", lambda name: True)

    def download(name: str) -> Path:
        asked.append(name)
        return everywhere["cache"].with_name("gone")

    monkeypatch.setattr(resolve, "download", download)
    for mark, path in everywhere.items():
        dataset = load_dataset("tiny")
        assert dataset.queries.texts[0] == mark
        assert dataset.name == "tiny"
        path.rename(path.with_name("gone"))
    assert asked == []
    assert load_dataset("tiny").queries.texts[0] == "cache"
    assert asked == ["tiny"]


def test_a_path_is_taken_as_it_is(everywhere: dict[str, Path]) -> None:
    assert load_dataset(str(everywhere["second"])).queries.texts[0] == "second"
    assert load_dataset("./datasets/tiny").queries.texts[0] == "datasets"
    assert load_dataset("datasets/tiny").name == "tiny"
    assert locate("./none") == Path("none")
    with pytest.raises(DataError, match="there is no folder none; check the path"):
        load_dataset("./none")


def test_a_broken_dataset_is_not_passed_over(everywhere: dict[str, Path]) -> None:
    """The next place would give another dataset under the same name, without a word."""
    (everywhere["here"] / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match=r"tiny/corpus.jsonl: there is no such file"):
        load_dataset("tiny")


def test_names_with_a_group(tiny: Dataset, home: Path) -> None:
    write_beir(tiny, home / "datasets" / "cqadupstack" / "android")
    write_beir(tiny, home / "datasets" / "mteb" / "scifact")
    assert load_dataset("cqadupstack/android").name == "cqadupstack/android"
    assert [dataset.name for dataset in available()] == ["cqadupstack/android", "mteb/scifact"]


def test_available_lists_each_name_once_with_its_place(everywhere: dict[str, Path], tiny: Dataset, home: Path) -> None:
    write_beir(tiny, home / "datasets" / "other")
    (home / "datasets" / ".unfinished").mkdir()
    (home / "datasets" / ".unfinished" / "corpus.jsonl").touch()
    assert available() == [
        Available("other", "cache", home / "datasets" / "other"),
        Available("tiny", "RANKSAGA_DATASETS", everywhere["first"]),
    ]


def test_unknown_names_say_where_was_looked(everywhere: dict[str, Path], home: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset("Tinny")
    message = str(caught.value)
    assert "there is no dataset 'Tinny'" in message
    assert "did you mean tiny?" in message
    for place in (everywhere["first"].parent, everywhere["second"].parent, home / "datasets", "./datasets"):
        assert str(place) in message
    with pytest.raises(DataError, match=re.escape("did you mean scifact?")):
        load_dataset("scifakt")


def test_a_group_is_not_a_dataset(home: Path) -> None:
    with pytest.raises(DataError, match="cqadupstack is a group of 12 datasets; name one of them"):
        load_dataset("cqadupstack")


@pytest.mark.parametrize("name", ["scifact", "mteb/scifact", "BeIR/quora", "cqadupstack/tex"])
def test_known_names_are_not_downloaded_offline(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match=f"{name} is not on this machine and HF_HUB_OFFLINE forbids downloads"):
        load_dataset(name)


def test_python_names_are_built(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('def f(x):\n    """Do one thing after another."""\n    y = x\n    return y\n')
    dataset: Any = load_dataset(f"python:{tmp_path}")
    assert dataset.corpus.ids == ("a:f",)
    assert load_dataset("python:json").queries.texts[0]


@pytest.mark.shared
def test_the_real_collections_are_found(shared_datasets: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKSAGA_DATASETS", str(shared_datasets))
    names = [dataset.name for dataset in available()]
    assert {"scifact", "nfcorpus", "cosqa", "cranfield", "cisi", "cystic-fibrosis"} <= set(names)
    assert len(load_dataset("cranfield").corpus) == 1400
