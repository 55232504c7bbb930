"""The size of the code: python bench/structure.py [FOLDER]

Lines of modules and functions in src (median, 90th percentile, most), settings of the recipe, and the share of
signatures that say ``Any``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def says_any(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    notes = [argument.annotation for argument in every if argument is not None]
    return any(
        isinstance(part, ast.Name) and part.id == "Any"
        for note in (*notes, function.returns)
        if note is not None
        for part in ast.walk(note)
    )


def spread(sizes: list[int]) -> str:
    return f"median {np.median(sizes):.0f}, p90 {np.percentile(sizes, 90):.0f}, most {max(sizes)}"


def main() -> None:
    """Print the figures."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "src/ranksaga")
    texts = [path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.py"))]
    trees = [ast.parse(text) for text in texts]
    lines = [len(text.splitlines()) for text in texts]
    every = [function for tree in trees for function in functions(tree)]
    fields = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)]
    settings = sum(
        isinstance(field.value, ast.Call) and getattr(field.value.func, "id", "") == "Field" for field in fields
    )
    print(f"modules: {len(texts)}, lines {sum(lines)}: {spread(lines)}")
    print(f"functions: {len(every)}: {spread([(one.end_lineno or 0) - one.lineno + 1 for one in every])}")
    print(f"settings of the recipe: {settings}")
    print(
        f"signatures with Any: {sum(map(says_any, every))} of {len(every)} ({np.mean(list(map(says_any, every))):.1%})"
    )


if __name__ == "__main__":
    main()
