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

from ranksaga.encode.attention import without_cudnn_attention
from ranksaga.encode.batch_layout import Packed, padded_length
from ranksaga.encode.device_copies import fetched, sent
from ranksaga.encode.flops import ForwardFlops
from ranksaga.encode.fused_encoding import FusedTransformer, fuse
from ranksaga.encode.memory_budget import encoding_tokens
from ranksaga.encode.models import on_cpu, revision_of
from ranksaga.encode.text_input import Rows, TextInput
from ranksaga.encode.towers import arguments
from ranksaga.errors import StageError, out_of_memory
from ranksaga.files import hash_json
from ranksaga.memory import keep_memory
from ranksaga.profile import timed

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["Engine", "LocalWorkers", "Tokens", "Workers", "compute_batches"]

Tokens = Rows  # a batch: the token ids of each text, or where a model reads more than ids, the texts


class Engine:
    """A model in the precision of its encoder. It travels to other processes by pickle, weights included.

    The transformer runs in ``precision``; pooling and normalisation always run in float32, which costs
    nothing and keeps scores exact. ``text_input`` is how the batches came about. With ``pads`` texts of
    different lengths go through the model together; a model that does not mask its padding gives each its own vector
    only without.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        precision: str,
        similarity: str,
        text_input: TextInput | None = None,
        *,
        pads: bool = True,
    ) -> None:
        self.model = model
        self.text_input = text_input or TextInput()
        self._precision = precision
        self._similarity = similarity
        self._pads = pads
        self._transformer: FusedTransformer | torch.nn.Module | None = None
        self._fits: float | None = None  # padded tokens of a batch that the device's memory holds, once that is known

    @cached_property
    def revision(self) -> str:
        """Identity of the weights."""
        return revision_of(self.model)

    @cached_property
    def identity(self) -> str:
        """Hash of all that changes a vector but the tokens: a worker that has this engine need not be sent it."""
        return hash_json([self.revision, self._precision, self._similarity, *self.settings])

    @property
    def settings(self) -> list[Any]:
        """What else changes a vector, beside tokens; empty for most models."""
        return [*self.text_input.identity, *([] if self._pads else [["pads", False]])]

    @cached_property
    def _flops(self) -> ForwardFlops:
        return ForwardFlops(self.model[0])

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.model.get_embedding_dimension() or 0)

    def padded_length(self, length: int) -> int:
        """Tokens that a text of so many is padded to, whatever is encoded beside it."""
        own = getattr(getattr(self.model, "tokenizer", None), "model_max_length", None) or self.text_input.max_length
        return padded_length(length, min(own, self.text_input.max_length))

    def __call__(self, tokens: Tokens) -> NDArray[np.float32]:
        """Vectors (n, d) of one batch. Where memory does not hold it, it goes in halves.

        Raises:
            StageError: there is no memory for a single text.
        """
        return self.begin(tokens)()

    def begin(self, tokens: Tokens) -> Callable[[], NDArray[np.float32]]:
        """Start on a batch; what comes back gives its vectors (n, d), for which a GPU is waited for only then."""
        import torch

        longest = max(map(len, tokens))
        padded = len(tokens) * longest
        if self._fits is None:
            self._fits = encoding_tokens(self._ready(), self.model.device, longest)
        if padded <= self._fits or len(tokens) == 1:
            flops = self._flops([len(row) for row in tokens])
            with torch.inference_mode(), timed("encode", flops):
                try:
                    return fetched(self._forward(tokens))
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
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
        self._fits = None
        return self

    def _forward(self, tokens: Tokens) -> torch.Tensor:
        import torch

        if not self._pads and len(set(map(len, tokens))) > 1:
            return torch.cat([self._forward(tokens[row : row + 1]) for row in range(len(tokens))])
        model, transformer = self.model, self._ready()
        given = arguments(model, self.text_input.task)
        if isinstance(transformer, FusedTransformer):
            texts = Packed.of(tokens)
            features = {**self.text_input.given, **texts.features(transformer(texts))}
        else:
            length = self.padded_length(max(map(len, tokens))) if self._pads else None
            features = {
                name: sent(value, model.device) if isinstance(value, torch.Tensor) else value
                for name, value in self.text_input.features(model, tokens, length).items()
            }
            with without_cudnn_attention(model.device):
                features = transformer.eval()(features, **given[0])
            if "token_embeddings" in features:
                features["token_embeddings"] = features["token_embeddings"].float()
        for module, more in zip(list(model)[1:], given[1:], strict=True):
            features = module(features, **more)
        vectors: torch.Tensor = features["sentence_embedding"].float()[:, : model.truncate_dim]
        return torch.nn.functional.normalize(vectors, dim=1) if self._similarity == "cosine" else vectors

    def _ready(self) -> FusedTransformer | torch.nn.Module:
        """The transformer in the encoder's precision, made once."""
        if self._transformer is None:
            first: torch.nn.Module = self.model[0]
            here = self.model.device.type == "cpu"
            if here:
                keep_memory()
            fusible = here and self._precision == "bf16" and self.text_input.form != "texts"
            self._transformer = (fuse(list(self.model)) if fusible else None) or self._in_precision(first)
        return self._transformer

    def _in_precision(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module, or where its weights are of another precision a copy: as transformers loads it in that type.

        What is no weight (the frequencies of rotary positions) stays as it is, and so do weights that the model's
        authors keep in float32.
        """
        import torch

        kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self._precision]
        if all(one.dtype == kind for one in module.parameters()):
            return module
        kept = _kept_in_float32(module, half=self._precision == "fp16")
        saved = module.state_dict().keys()
        copies: dict[int, torch.Tensor] = {}  # in the place of what deepcopy would copy: no second model in float32
        for name, one in [*module.named_parameters(), *module.named_buffers()]:
            if one.is_floating_point() and name in saved and not any(f".{part}." in f".{name}." for part in kept):
                cast = one.detach().to(kind)
                copies[id(one)] = (
                    torch.nn.Parameter(cast, requires_grad=False) if isinstance(one, torch.nn.Parameter) else cast
                )
        return copy.deepcopy(module, copies)

    def __getstate__(self) -> dict[str, Any]:
        """What travels: the weights in the precision they are used in, on the CPU."""
        model = on_cpu(self.model)
        if self._precision != "fp32":
            model = copy.deepcopy(model)
            model[0] = self._in_precision(model[0])
        return {
            "model": model,
            "text_input": self.text_input,
            "_pads": self._pads,
            "_precision": self._precision,
            "_similarity": self._similarity,
            "_transformer": None,
            "_fits": None,
        }


class Workers(Protocol):
    """Who computes batches."""

    @property
    def device(self) -> str | None:
        """The kind of device that computes (cpu, cuda); none: that of the engine's model."""

    def vectors(self, engine: Engine, batches: Sequence[Tokens]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Place and vectors (n, d) of every batch, in any order."""
        ...


class LocalWorkers:
    """This process."""

    device: str | None = None

    def vectors(self, engine: Engine, batches: Sequence[Tokens]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Batch by batch."""
        return compute_batches(engine, enumerate(batches))


def compute_batches(engine: Engine, batches: Iterable[tuple[int, Tokens]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Place and vectors (n, d) of every batch; the next one is begun before a batch is waited for."""
    waiting: tuple[int, Callable[[], NDArray[np.float32]]] | None = None
    for place, tokens in batches:
        begun = place, engine.begin(tokens)
        if waiting is not None:
            yield waiting[0], waiting[1]()
        waiting = begun
    if waiting is not None:
        yield waiting[0], waiting[1]()


def _kept_in_float32(module: torch.nn.Module, *, half: bool) -> set[str]:
    """Names of the parts that transformers leaves in float32 when it loads the model in bf16, or in fp16 (``half``)."""
    names: set[str] = set()
    for part in module.modules():
        names.update(getattr(part, "_keep_in_fp32_modules_strict", None) or ())
        if half:
            names.update(getattr(part, "_keep_in_fp32_modules", None) or ())
    return names
