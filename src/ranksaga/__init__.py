"""RankSaga makes an embedding model better at retrieval on every dataset it is given, and proves it.

The names below are what a program needs; ``docs/python.md`` shows them at work. Each is imported when it is first
used, so that ``import ranksaga`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ranksaga.config.load import load_recipe
    from ranksaga.config.recipe import Recipe
    from ranksaga.data.dataset import Dataset
    from ranksaga.data.resolve import load_dataset
    from ranksaga.encode.encoder import Encoder, load_encoder
    from ranksaga.retrieve.searcher import Searcher
    from ranksaga.run.model_comparison import compare_results
    from ranksaga.run.model_results import benchmark_model
    from ranksaga.run.pipeline import run_recipe

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "Encoder",
    "Recipe",
    "Searcher",
    "__version__",
    "benchmark_model",
    "compare_results",
    "load_dataset",
    "load_encoder",
    "load_recipe",
    "run_recipe",
]

_MODULES = {
    "Dataset": "ranksaga.data.dataset",
    "Encoder": "ranksaga.encode.encoder",
    "Recipe": "ranksaga.config.recipe",
    "Searcher": "ranksaga.retrieve.searcher",
    "benchmark_model": "ranksaga.run.model_results",
    "compare_results": "ranksaga.run.model_comparison",
    "load_dataset": "ranksaga.data.resolve",
    "load_encoder": "ranksaga.encode.encoder",
    "load_recipe": "ranksaga.config.load",
    "run_recipe": "ranksaga.run.pipeline",
}

if not TYPE_CHECKING:  # a type checker is to see the names above, and no others

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module 'ranksaga' has no attribute {name!r} (known: {', '.join(__all__)})")
        return getattr(import_module(_MODULES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
