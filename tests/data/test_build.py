from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ranksaga.data import build as module
from ranksaga.data.beir import read_beir, write_beir
from ranksaga.data.build import build, build_python
from ranksaga.data.dataset import Dataset
from ranksaga.errors import DataError

SHAPES = '''
import functools


def area(width, height):
    """Area of a rectangle
    with two sides.

    More that is not part of the summary.
    """
    # A comment stays.
    result = width * height
    return result


class Circle:
    """Documents of a class are not taken."""

    @property
    def size(self):
        "Length of the whole circumference."
        radius = self.radius
        return 6.28 * radius

    def short(self):
        """Too few words."""
        x = 1
        return x

    def stub(self):
        """Only one statement is in here."""
        return None

    def bare(self):
        x = 1
        return x


if functools:

    async def later(queue):
        """Wait for the next thing in a queue."""

        def inner():
            """Functions in functions are part of them."""
            a = 1
            return a

        return await queue.get(inner)


def one_line(): "All of this is on one line."; x = 1; return x


def signature(a, b):
    """signature(a, b) -> the thing that it makes"""
    c = a + b
    return c
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "lib"
    (root / "deep" / "tests").mkdir(parents=True)
    (root / "shapes.py").write_text(SHAPES)
    function = '\ndef {0}(x):\n    """{1}"""\n    y = x + {2}\n    return y\n'
    (root / "deep" / "__init__.py").write_text(function.format("opening", "What a package does first.", 1))
    (root / "tail.py").write_text(
        function.format("other", "area of a RECTANGLE, with two sides", 2)
        + function.format("twice", "This source is in the tree twice.", 3)
    )
    (root / "zoo.py").write_text(function.format("twice", "The same source under other words.", 3))
    (root / "deep" / "tests" / "test_x.py").write_text(function.format("tested", "Tests are not taken at all.", 4))
    (root / "conftest.py").write_text(function.format("fixture", "Nor are the fixtures of tests.", 5))
    (root / "broken.py").write_text("def broken(:\n")
    (root / "latin.py").write_bytes(
        b"# -*- coding: latin-1 -*-" + function.format("cafe", "Drink a caf\xe9 in the morning.", 6).encode("latin-1")
    )
    (root / "feed.py").write_text("x = 1\n\x0c\n" + function.format("fed", "A form feed is above this one.", 7))
    return root


def pairs(dataset: Dataset) -> dict[str, tuple[str, str]]:
    """Summary and source by document id, for each query's one relevant document."""
    found = {}
    for qrels in dataset.qrels.values():
        for query, document, score in zip(qrels.queries, qrels.documents, qrels.scores, strict=True):
            assert score == 1
            found[dataset.corpus.ids[document]] = (dataset.queries.texts[query], dataset.corpus.texts[document])
    return found


def test_what_is_taken_from_a_tree(tree: Path) -> None:
    dataset = build_python(tree, "mine")
    found = pairs(dataset)
    assert dataset.name == "mine"
    assert list(dataset.corpus.ids) == sorted(found)
    assert list(dataset.corpus.ids) == [
        "deep.__init__:opening",
        "feed:fed",
        "latin:cafe",
        "shapes:Circle.size",
        "shapes:area",
        "shapes:later",
        "tail:twice",
    ]
    assert found["shapes:area"] == (
        "Area of a rectangle with two sides.",
        "def area(width, height):\n    # A comment stays.\n    result = width * height\n    return result",
    )
    assert found["shapes:Circle.size"] == (
        "Length of the whole circumference.",
        "@property\ndef size(self):\n    radius = self.radius\n    return 6.28 * radius",
    )
    assert found["feed:fed"][1] == "def fed(x):\n    y = x + 7\n    return y"
    assert found["latin:cafe"][0] == "Drink a café in the morning."


def test_no_query_shares_its_documents_id(tree: Path) -> None:
    dataset = build_python(tree)
    assert not set(dataset.queries.ids) & set(dataset.corpus.ids)
    assert dataset.corpus.titles == ("",) * len(dataset.corpus)
    assert dataset.name == "python:lib"


def test_a_tiny_tree_is_all_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_hash", lambda text: 0.1)
    (tmp_path / "shapes.py").write_text(SHAPES)
    assert {split: len(qrels) for split, qrels in build_python(tmp_path).qrels.items()} == {"test": 3}


def test_the_place_of_the_tree_does_not_matter(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "elsewhere" / "other")
    assert build_python(tree).fingerprint == build_python(tmp_path / "elsewhere" / "other").fingerprint


def test_the_limit_keeps_the_same_functions_in_a_larger_limit(tree: Path) -> None:
    three, four = (build_python(tree, limit=limit) for limit in (3, 4))
    assert len(three.corpus) == len(three.queries) == 3
    assert set(three.corpus.ids) < set(four.corpus.ids) < set(build_python(tree).corpus.ids)
    assert list(four.corpus.ids) == sorted(four.corpus.ids)


def test_nothing_to_build_from(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(DataError, match="no function with a docstring was found; give a documented Python source tree"):
        build_python(tmp_path)
    with pytest.raises(DataError, match="there is no such file or folder"):
        build_python(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:scikit-learn", "no package 'scikit-learn' is installed; did you mean python:sklearn?"),
        ("python:numpi", "no package 'numpi' is installed; did you mean python:numpy"),
        ("python:qzqzqz", "no package 'qzqzqz' is installed; install it, or use python:stdlib"),
        ("python:sys", "found no Python source for it at built-in; choose a package written in Python"),
        ("python:numpy.nothing", "found no Python source for it at "),
        ("python:json?limit=0", "the option 'limit=0' is not known; write python:json?limit=1000"),
        ("python:json?size=9", "the option 'size=9' is not known; write python:json?limit=1000"),
        ("python:./none", "none: there is no such file or folder; give a Python source tree"),
    ],
)
def test_names_that_give_nothing(name: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        build(name)
    assert message in str(caught.value)


def test_a_package_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "explosive"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "sub" / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "sub" / "shapes.py").write_text(SHAPES)
    monkeypatch.syspath_prepend(tmp_path)
    whole, part, one = (build(f"python:explosive{rest}") for rest in ("", ".sub", ".sub.shapes"))
    assert whole.corpus == part.corpus == one.corpus
    assert whole.corpus.ids[0] == "explosive.sub.shapes:Circle.size"
    assert whole.name == "python:explosive"


def test_a_built_dataset_is_taken_from_the_cache_until_the_source_changes(
    tree: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(f"python:{tree}")
    with monkeypatch.context() as patch:
        patch.setattr(module, "build_python", None)  # so that building again would fail
        again = build(f"python:{tree}")
    assert again.fingerprint == first.fingerprint
    assert again.name == f"python:{tree}"
    os.utime(tree / "shapes.py", ns=(1, 1))
    (tree / "latin.py").unlink()
    assert len(build(f"python:{tree}").corpus) == len(first.corpus) - 1


@pytest.fixture(scope="module")
def stdlib() -> Dataset:
    return build_python(Path(textwrap.__file__).parent, "python:stdlib")


@pytest.mark.slow
def test_standard_library(stdlib: Dataset) -> None:
    assert len(stdlib.corpus) == len(stdlib.queries) > 2000
    assert "textwrap:dedent" in stdlib.corpus.ids
    folders = {part for name in stdlib.corpus.ids for part in name.partition(":")[0].split(".")}
    assert not folders & {"site-packages", "test", "tests", "idlelib", "lib2to3", "ensurepip"}
    shares = {split: len(qrels) / len(stdlib.queries) for split, qrels in stdlib.qrels.items()}
    assert shares == pytest.approx({"train": 0.60, "dev": 0.15, "test": 0.25}, abs=0.08)


@pytest.mark.slow
def test_a_module_lies_in_one_split(stdlib: Dataset) -> None:
    home_of: dict[str, str] = {}
    for split, qrels in stdlib.qrels.items():
        for row in qrels.queries.tolist():
            name = stdlib.queries.ids[row].removeprefix("q:").partition(":")[0]
            assert home_of.setdefault(name, split) == split
    assert len(home_of) > 200


@pytest.mark.slow
def test_no_copies_and_no_docstrings(stdlib: Dataset) -> None:
    assert len({" ".join(text.split()) for text in stdlib.corpus.texts}) == len(stdlib.corpus)
    assert len({text.lower() for text in stdlib.queries.texts}) == len(stdlib.queries)
    for text in stdlib.corpus.texts:
        try:
            (node,) = ast.parse(text).body
        except SyntaxError:
            continue  # a string with text at the margin keeps its function from being dedented
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        assert not isinstance(node.body[0], ast.Expr) or ast.get_docstring(node) is None


@pytest.mark.slow
def test_the_same_on_another_hash_seed(stdlib: Dataset, tmp_path: Path) -> None:
    """Sets of strings are ordered anew in each process; the dataset must not show it."""
    code = (
        "from pathlib import Path; from ranksaga.data.build import build_python; "
        f"print(build_python(Path({str(Path(textwrap.__file__).parent / 'email')!r})).fingerprint)"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1


@pytest.mark.slow
def test_it_survives_the_disk(stdlib: Dataset, tmp_path: Path) -> None:
    write_beir(stdlib, tmp_path / "stdlib")
    assert read_beir(tmp_path / "stdlib").fingerprint == stdlib.fingerprint
