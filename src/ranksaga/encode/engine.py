"""The computing part of an encoder: rows of tokens in, vectors out, in this process or where a back end has workers.

An encoder cuts its texts into batches; what computes a batch is decided here. The cut does not depend on
who computes, so the vectors are the same on one worker and on many.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ranksaga.encode.flops import ForwardFlops
from ranksaga.encode.fused import FusedTransformer, fuse
from ranksaga.encode.layout import Packed, padded, padded_length
from ranksaga.encode.models import on_cpu, revision_of
from ranksaga.errors import StageError
from ranksaga.files import hash_json
from ranksaga.memory import keep_memory
from ranksaga.profile import timed

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["Engine", "Here", "Tokens", "Workers", "computed"]

Tokens = Sequence[Sequence[int]]  # a batch: the token ids of each text


class Engine:
    """A model in the precision of its encoder. It travels to other processes by pickle, weights included.

    The transformer runs in ``precision``; pooling and normalisation always run in float32, which costs
    nothing and keeps scores exact.
    """

    def __init__(self, model: SentenceTransformer, precision: str, similarity: str) -> None:
        self.model = model
        self._precision = precision
        self._similarity = similarity
        self._transformer: FusedTransformer | torch.nn.Module | None = None
        self._fits: float = float("inf")  # padded tokens of a batch that the device's memory holds, as far as is known

    @cached_property
    def revision(self) -> str:
        """Identity of the weights."""
        return revision_of(self.model)

    @cached_property
    def identity(self) -> str:
        """Hash of all that changes a vector but the tokens: a worker that has this engine need not be sent it."""
        return hash_json([self.revision, self._precision, self._similarity])

    @cached_property
    def _flops(self) -> ForwardFlops:
        return ForwardFlops(self.model[0])

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.model.get_embedding_dimension() or 0)

    def __call__(self, tokens: Tokens) -> NDArray[np.float32]:
        """Vectors (n, d) of one batch. Where the device's memory does not hold it, it goes in halves.

        Raises:
            StageError: there is no memory for a single text.
        """
        return self.begin(tokens)()

    def begin(self, tokens: Tokens) -> Callable[[], NDArray[np.float32]]:
        """Start on a batch; what comes back gives its vectors (n, d), for which a GPU is waited for only then."""
        import torch

        padded = len(tokens) * max(map(len, tokens))
        if padded <= self._fits or len(tokens) == 1:
            flops = self._flops([len(row) for row in tokens])
            with torch.inference_mode(), timed("encode", flops):
                try:
                    return _fetched(self._forward(tokens))
                except torch.OutOfMemoryError:
                    if len(tokens) == 1:
                        raise StageError(
                            f"no memory on {self.model.device} for a text of {padded} tokens; set a smaller max_length"
                        ) from None
            torch.cuda.empty_cache()
            self._fits = padded // 2
        middle = len(tokens) // 2
        halves = self.begin(tokens[:middle]), self.begin(tokens[middle:])
        return lambda: np.concatenate([half() for half in halves])

    def to(self, device: str) -> Engine:
        """This engine with its model moved to a device, as torch names it."""
        self.model.to(device)
        self._transformer = None
        self._fits = float("inf")
        return self

    def _forward(self, tokens: Tokens) -> torch.Tensor:
        import torch

        model, transformer = self.model, self._ready()
        if isinstance(transformer, FusedTransformer):
            texts = Packed.of(tokens)
            features = texts.features(transformer(texts))
        else:
            length = padded_length(max(map(len, tokens)), model.tokenizer)
            ids, mask = padded(tokens, model.tokenizer, length)
            if model.device.type == "cuda":  # copies from pinned memory are not waited for
                ids, mask = (one.pin_memory().to(model.device, non_blocking=True) for one in (ids, mask))
            features = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
            features = transformer.eval()(features)
            features["token_embeddings"] = features["token_embeddings"].float()
        for module in list(model)[1:]:
            features = module(features)
        vectors: torch.Tensor = features["sentence_embedding"].float()
        return torch.nn.functional.normalize(vectors, dim=1) if self._similarity == "cosine" else vectors

    def _ready(self) -> FusedTransformer | torch.nn.Module:
        """The transformer in the encoder's precision, made once."""
        if self._transformer is None:
            first: torch.nn.Module = self.model[0]
            here = self.model.device.type == "cpu"
            if here:
                keep_memory()
            fusible = here and self._precision == "bf16"
            self._transformer = (fuse(list(self.model)) if fusible else None) or self._in_precision(first)
        return self._transformer

    def _in_precision(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module, or where its weights are of another precision a copy."""
        import torch

        kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self._precision]
        if all(one.dtype == kind for one in module.parameters()):
            return module
        return copy.deepcopy(module).to(kind)

    def __getstate__(self) -> dict[str, Any]:
        """What travels: the weights in the precision they are used in, on the CPU."""
        model = on_cpu(self.model)
        if self._precision != "fp32":
            model = copy.deepcopy(model)
            model[0] = self._in_precision(model[0])
        return {
            "model": model,
            "_precision": self._precision,
            "_similarity": self._similarity,
            "_transformer": None,
            "_fits": float("inf"),
        }


class Workers(Protocol):
    """Who computes batches."""

    @property
    def device(self) -> str | None:
        """The kind of device that computes (cpu, cuda); none: that of the engine's model."""

    def vectors(self, engine: Engine, batches: Sequence[Tokens]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Place and vectors (n, d) of every batch, in any order."""
        ...


class Here:
    """This process."""

    device: str | None = None

    def vectors(self, engine: Engine, batches: Sequence[Tokens]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Batch by batch."""
        return computed(engine, enumerate(batches))


def computed(engine: Engine, batches: Iterable[tuple[int, Tokens]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Place and vectors (n, d) of every batch; the next one is begun before a batch is waited for."""
    waiting: tuple[int, Callable[[], NDArray[np.float32]]] | None = None
    for place, tokens in batches:
        begun = place, engine.begin(tokens)
        if waiting is not None:
            yield waiting[0], waiting[1]()
        waiting = begun
    if waiting is not None:
        yield waiting[0], waiting[1]()


def _fetched(vectors: torch.Tensor) -> Callable[[], NDArray[np.float32]]:
    """Gives the vectors in the CPU's memory; the copy from a GPU is begun here, and waited for when called."""
    import torch

    if vectors.device.type != "cuda":
        here: NDArray[np.float32] = vectors.cpu().numpy()
        return lambda: here
    host = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
    host.copy_(vectors, non_blocking=True)
    copied = torch.cuda.current_stream(vectors.device).record_event()

    def wait() -> NDArray[np.float32]:
        copied.synchronize()
        found: NDArray[np.float32] = host.numpy()
        return found

    return wait
