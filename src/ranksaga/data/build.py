"""Retrieval data from Python source: find the function that a docstring describes.

A query is a docstring's summary, its one relevant document the function's source without the
docstring. It is real text that nobody wrote for a benchmark, and it needs no download: the
standard library alone gives thousands of pairs. The idea is CodeSearchNet's (Husain et al.
2019, https://arxiv.org/abs/1909.09436).

The result depends on the source only, never on the machine or on where the source lies.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import logging
import os
import re
import sys
import sysconfig
import textwrap
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ranksaga.data.beir import read_beir, write_beir
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.errors import DataError
from ranksaga.files import cache_home, file_state, hash_json, read_json_if_sound, write_json
from ranksaga.untrusted.escape import is_name

__all__ = ["PREFIX", "build", "build_python", "source_root", "source_state"]

PREFIX = "python:"
_VERSION = 1  # raise it when the same source gives another dataset
_MIN_WORDS = 4  # of a summary: shorter ones ("Return self.") describe nothing
_MAX_WORDS = 64  # longer ones are whole manuals without a blank line
_MIN_STATEMENTS = 2  # of a body: one statement is a stub or an alias
_TRAIN, _DEV = 0.60, 0.75  # upper ends on the hash of a module; above: test

# Tests repeat the code they test; vendored packages and generated tables are not the package's own.
_SKIPPED_FOLDERS = re.compile(
    r"\..*|__pycache__|_?vendor(ed)?|(dist|site)-packages|ensurepip|externals|idlelib|lib-dynload|lib2to3"
    r"|node_modules|pydoc_data|tests?|turtledemo|venv"
)
_SKIPPED_FILES = re.compile(r"(test_.*|.*_tests?|conftest|setup)\.py")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Function:
    """A documented function: ``module:qualname``, its docstring's summary, its source without docstring."""

    id: str
    module: str
    summary: str
    source: str


def build(name: str) -> Dataset:
    """Build the dataset that a name such as ``python:scipy?limit=1000`` asks for, or take it from the cache.

    ``python:stdlib`` is the standard library; otherwise an installed package or module by its
    import name (it is not imported), or, where a path separator is in it, a source folder.

    Raises:
        DataError: no such package, or a wrong option, or nothing to build from.
    """
    target, limit = _split_name(name)
    root, package = _root(target)
    folder = cache_home() / "built" / hash_json([str(root.resolve()), package, limit])
    stamp, state = folder / "source.json", _state(root)
    if read_json_if_sound(stamp) == state:
        return read_beir(folder, name)
    dataset = build_python(root, name, limit, package)
    write_beir(dataset, folder)
    write_json(stamp, state)  # last, so that it vouches for the rest
    return dataset


def source_state(name: str) -> str:
    """Stamp of the files that a ``python:`` name would be built from, without reading them.

    Raises:
        DataError: there is no such package, or it is not written in Python.
    """
    return _state(source_root(name))


def source_root(name: str) -> Path:
    """Folder or file of the source that a ``python:`` name would be built from.

    Raises:
        DataError: no such package, or a wrong option.
    """
    return _root(_split_name(name)[0])[0]


def _root(target: str) -> tuple[Path, str]:
    """Folder or file of the source, and the package it is (empty for a plain tree)."""
    if "/" in target or target.startswith("."):
        return Path(target).expanduser(), ""
    return _locate(target)


def _state(root: Path) -> str:
    """What a build depends on: builder, Python's grammar, and the files as the file system knows them."""
    seen = [[str(file), *file_state(file)] for file in _files(root)] if root.exists() else []
    return hash_json([_VERSION, sys.version_info[:2], seen])


def build_python(path: Path, name: str | None = None, limit: int | None = None, package: str = "") -> Dataset:
    """Build a dataset from Python source: all documented functions and methods outside tests.

    Functions with the same summary or the same source as an earlier one are left out. Split
    by the hash of a function's module: about 60% train, 15% dev, 25% test, so that what shares
    a module shares a split. A tree so small that no module falls into test is all test.

    Args:
        path: a source folder or one .py file.
        name: what the dataset is called; None: ``python:`` and the path's name.
        limit: keep this many functions, those with the lowest hash of their id; None: all.
        package: put before each module's name, as in ``scipy.linalg``.

    Raises:
        DataError: there is no such path or no documented function in it.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; give a Python source tree")
    functions = _distinct(function for file in _files(path) for function in _functions(path, file, package))
    if limit is not None:
        chosen = sorted(functions, key=lambda function: _hash(function.id))[:limit]
        functions = sorted(chosen, key=lambda function: function.id)
    if not functions:
        raise DataError(f"{path}: no function with a docstring was found; give a documented Python source tree")
    return _dataset(name or f"{PREFIX}{path.resolve().stem}", functions)


def _split_name(name: str) -> tuple[str, int | None]:
    target, _, options = name.removeprefix(PREFIX).partition("?")
    if not options:
        return target, None
    key, _, value = options.partition("=")
    if key != "limit" or not value.isdecimal() or int(value) < 1:
        raise DataError(f"{name}: the option {options!r} is not known; write {PREFIX}{target}?limit=1000")
    return target, int(value)


def _locate(name: str) -> tuple[Path, str]:
    """Source path of an installed package or module, and the prefix of its modules' names."""
    if name == "stdlib":
        return Path(sysconfig.get_path("stdlib")), ""
    top, *rest = name.split(".")
    # The spec of a dotted name would import its parent, so only the top is looked up.
    spec = importlib.util.find_spec(top) if top.isidentifier() and top != "__main__" else None
    if spec is None:
        raise DataError(f"{PREFIX}{name}: no package {top!r} is installed; {_advice(top)}")
    root = Path(next(iter(spec.submodule_search_locations or ()), spec.origin or ""))
    path = root.joinpath(*rest)
    if not path.exists() and path.with_suffix(".py").is_file():
        path = path.with_suffix(".py")
    if not path.is_dir() and path.suffix != ".py":
        raise DataError(f"{PREFIX}{name}: found no Python source for it at {path}; choose a package written in Python")
    return path, name if path.is_dir() else name.rpartition(".")[0]


def _advice(name: str) -> str:
    """What to try instead of a package that is not installed."""
    from importlib.metadata import packages_distributions

    imports = packages_distributions()
    provided = [package for package, projects in imports.items() if name in projects and package.isidentifier()]
    near = provided or difflib.get_close_matches(name, imports, n=3)
    return f"did you mean {PREFIX}{f' or {PREFIX}'.join(near)}?" if near else "install it, or use python:stdlib"


def _files(path: Path) -> list[Path]:
    """The .py files of a tree without tests, ordered by their path inside it."""
    if path.is_file():
        return [path]
    found: list[Path] = []
    for folder, names, files in os.walk(path):
        names[:] = [name for name in names if not _SKIPPED_FOLDERS.fullmatch(name)]
        names[:] = [name for name in names if is_name(name)]  # ids are UTF-8 text
        sources = [file for file in files if file.endswith(".py") and not _SKIPPED_FILES.fullmatch(file)]
        # To read a FIFO or a device may never end.
        found += [Path(folder, file) for file in sources if is_name(file) and Path(folder, file).is_file()]
    return sorted(found, key=lambda file: file.relative_to(path).parts)


def _functions(root: Path, file: Path, package: str) -> Iterator[_Function]:
    """The documented functions of one file, in its order; none if it does not parse."""
    try:
        with tokenize.open(file) as stream:  # honours the file's own encoding declaration
            source = stream.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the source's bad escapes are not our user's business
            tree = ast.parse(source)
        source.encode()  # a declared encoding, such as UTF-7, can give halves of characters
        definitions = list(_definitions(tree.body, ""))
    except (SyntaxError, ValueError, LookupError, RecursionError, MemoryError, OSError) as problem:
        logger.debug("%s: left out, it does not parse (%s)", file, problem)
        return
    inner = file.relative_to(root).with_suffix("").parts if file != root else (file.stem,)
    names = [*package.split("."), *(part for part in inner if part != "__init__")] if package else list(inner)
    module = ".".join(names)
    lines = source.split("\n")  # not splitlines: ast does not count a form feed as the end of a line
    taken: set[str] = set()
    for qualname, node in definitions:
        text = _without_docstring(node, lines)
        summary = _summary(node)
        if text is None or summary is None or qualname in taken:
            continue
        taken.add(qualname)
        yield _Function(f"{module}:{qualname}", module, summary, text)


def _definitions(body: Sequence[ast.stmt], scope: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Functions and methods with their qualified names; those inside a function are part of it."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield scope + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, f"{scope}{node.name}.")
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _definitions(node.body, scope)
            yield from _definitions(getattr(node, "orelse", []), scope)
            for handler in getattr(node, "handlers", []):
                yield from _definitions(handler.body, scope)


def _summary(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    """First paragraph of the docstring on one line; None if it is no summary."""
    docstring = ast.get_docstring(node) or ""
    summary = " ".join(re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0].split())
    words = re.findall(r"\w+", summary)
    if not _MIN_WORDS <= len(words) <= _MAX_WORDS or summary.startswith((f"{node.name}(", ">>>")):
        return None
    return summary if summary.isprintable() else None


def _without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: Sequence[str]) -> str | None:
    """Dedented source without the docstring; None if there is too little of it."""
    first, body = node.body[0], node.body[1:]
    statements = sum(isinstance(inner, ast.stmt) for outer in body for inner in ast.walk(outer))
    if statements < _MIN_STATEMENTS:
        return None
    start = min(decorated.lineno for decorated in (node, *node.decorator_list))
    end = first.end_lineno or first.lineno
    if lines[first.lineno - 1][: first.col_offset].strip() or body[0].lineno <= end:
        return None  # the docstring shares a line with code
    return textwrap.dedent("\n".join((*lines[start - 1 : first.lineno - 1], *lines[end : node.end_lineno]))).strip()


def _distinct(functions: Iterator[_Function]) -> list[_Function]:
    """Without functions whose summary (case and marks aside) or source was there before; ordered by id."""
    summaries: set[str] = set()
    sources: set[str] = set()
    kept = []
    for function in functions:
        summary = " ".join(re.findall(r"\w+", function.summary.lower()))
        source = " ".join(function.source.split())
        if summary not in summaries and source not in sources:
            kept.append(function)
        summaries.add(summary)
        sources.add(source)
    return sorted(kept, key=lambda function: function.id)


def _hash(text: str) -> float:
    """A number in [0, 1) that is the same everywhere."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def _dataset(name: str, functions: Sequence[_Function]) -> Dataset:
    ids = tuple(function.id for function in functions)
    corpus = Corpus(ids, ("",) * len(ids), tuple(function.source for function in functions))
    # A query must not share its document's id: such a document is taken out of the query's rankings.
    queries = Queries(tuple(f"q:{i}" for i in ids), tuple(function.summary for function in functions))
    places = [_hash(function.module) for function in functions]
    if max(places) < _DEV:
        places = [1.0] * len(places)
    splits: dict[str, list[tuple[int, int, int]]] = {}
    for row, place in enumerate(places):
        split = "train" if place < _TRAIN else "dev" if place < _DEV else "test"
        splits.setdefault(split, []).append((row, row, 1))
    return Dataset(name, corpus, queries, {split: Qrels.of(triples) for split, triples in splits.items()})
