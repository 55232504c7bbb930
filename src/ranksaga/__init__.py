"""RankSaga makes an embedding model better at retrieval on every dataset it is given, and proves it."""

__version__ = "0.1.0"

__all__ = ["__version__"]
