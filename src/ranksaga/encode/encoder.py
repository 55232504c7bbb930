"""Encoder: model + prompts + max length + precision. Texts in, unit vectors out.

What is done with the texts of each task, queries and documents, is in ``task_encoder``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.encode import task_encoder
from ranksaga.encode.engine import Engine, LocalWorkers, Workers
from ranksaga.encode.identity import software
from ranksaga.encode.models import assumed_pooling, load_model, locate, revision_of
from ranksaga.encode.precision import choose_precision
from ranksaga.encode.prompts import Prompts, find_prompts, name_hints
from ranksaga.encode.saving import note_dtypes, round_weights
from ranksaga.encode.supported_models import check_model, check_trainable, saved_folder
from ranksaga.encode.task_encoder import TaskEncoder
from ranksaga.encode.text_input import PROBES, UNLIMITED, limit_length, own_limit, text_input_of, vocabulary_probes
from ranksaga.encode.towers import DOCUMENT, QUERY, towers
from ranksaga.errors import ModelError, machine_error
from ranksaga.files import hash_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["Encoder", "EncoderSpec", "load_encoder"]

logger = logging.getLogger(__name__)

# Two ways to the same vector in float32 differ by less than this share of its largest value.
CLOSE = 1e-3


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that changes a vector. Its hash is the encoder's identity.

    ``assumed_pooling`` says how tokens are pooled where the model itself does not, else it is empty.
    """

    model: str
    revision: str
    prompts: Prompts
    max_length: int
    precision: str
    similarity: str
    assumed_pooling: str = ""
    truncate_dim: int | None = None

    @property
    def identity(self) -> str:
        """16 hex digits; the model's name and the prompts' source do not enter, and the pooling is in the revision."""
        values = asdict(self)
        del values["model"], values["prompts"]["source"], values["assumed_pooling"]
        if self.truncate_dim is None:
            del values["truncate_dim"]
        return hash_json({**values, "format": task_encoder.FORMAT, "software": software()})

    @property
    def facts(self) -> dict[str, Any]:
        """All of it and the identity, as JSON."""
        return {**asdict(self), "identity": self.identity}

    def __str__(self) -> str:
        prompts = f"query prompt {self.prompts.query!r}, document prompt {self.prompts.document!r}"
        text = f"{self.model}: {prompts} ({self.prompts.source}), {self.max_length} tokens, {self.precision}, "
        pooling = f"; no pooling configuration: {self.assumed_pooling}" if self.assumed_pooling else ""
        return f"{text}{self.similarity}{pooling}"


class Encoder:
    """Encodes queries and documents with one model, or with its two towers.

    ``model`` stays in float32: it is what training starts from and what is saved. A copy of its
    transformers in the encoder's precision does the encoding. With ``cached`` every vector is kept
    on disk, and none is computed twice, whichever run asks for it. ``workers`` compute the vectors.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        spec: EncoderSpec,
        *,
        cached: bool = False,
        workers: Workers | None = None,
        pads: bool = True,
    ) -> None:
        self.model = model
        self.spec = spec
        self._cached = cached
        self._workers = workers = workers or LocalWorkers()
        self._pads = pads
        query, document = towers(model)
        prompts = spec.prompts
        text_inputs = (
            text_input_of(model, query, QUERY, prompts.query, spec.max_length),
            text_input_of(model, document, DOCUMENT, prompts.document, spec.max_length),
        )
        alike = document is query and text_inputs[0].identity == text_inputs[1].identity
        engine = Engine(query, spec.precision, spec.similarity, text_inputs[0], pads=pads)
        self._query = self._document = TaskEncoder(engine, text_inputs[0], spec, cached, workers)
        if not alike:
            engine = Engine(document, spec.precision, spec.similarity, text_inputs[1], pads=pads)
        if not alike or prompts.document != prompts.query:
            self._document = TaskEncoder(engine, text_inputs[1], spec, cached, workers)

    @property
    def device(self) -> str:
        """Where the model lies, as torch names it."""
        return str(self.model.device)

    @property
    def on_gpu(self) -> bool:
        """Whether vectors are computed on a GPU, so that this process's cores are free meanwhile."""
        return self._document.on_gpu

    @property
    def document_identity(self) -> str:
        """Hash of all that changes a document's vector: equal where an index that stands stays valid."""
        return self._document.identity

    def encode_queries(
        self, texts: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Vectors (n, d) float32 of queries, each with the query prompt before it."""
        return self._query.encode(texts, progress)

    def encode_documents(
        self, texts: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Vectors (n, d) float32 of documents, each with the document prompt before it."""
        return self._document.encode(texts, progress)

    def with_model(self, model: SentenceTransformer) -> Encoder:
        """The same settings around other weights, which are rounded to the precision that they would be saved in."""
        round_weights(model)
        spec = EncoderSpec(**{**self.spec.__dict__, "revision": revision_of(model)})
        return Encoder(model, spec, cached=self._cached, workers=self._workers, pads=self._pads)

    def check_trainable(self, *, two_towers: bool) -> None:
        """Refuse a model that cannot be trained, in two towers or as it is.

        Raises:
            ModelError: see :func:`ranksaga.encode.supported_models.check_trainable`.
        """
        text_inputs = self._query.text_input, self._document.text_input
        check_trainable(self.spec.model, self.model, text_inputs, pads=self._pads, two_towers=two_towers)


def load_encoder(
    name: str,
    *,
    precision: str = "auto",
    max_length: int | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    cached: bool = False,
    workers: Workers | None = None,
) -> Encoder:
    """Load a model and settle its prompts, length and precision.

    ``cached`` keeps its vectors on disk; ``workers`` compute them, by default this process.

    Raises:
        ModelError: see :func:`ranksaga.encode.models.load_model`.
    """
    model = load_model(name, device=device, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
    where = Path(locate(name))
    hints = name_hints(name, where if where.is_dir() else None)
    prompts = find_prompts(dict(model.prompts), hints, query_prompt, document_prompt)
    folder = saved_folder(str(where) if where.is_dir() else locate(name))
    check_model(name, model, folder)
    note_dtypes(model, folder)
    try:
        tasks = tuple(zip(towers(model), (QUERY, DOCUMENT), strict=True))
        for tower, task in tasks:
            limit_length(tower, task, max_length or UNLIMITED)
        spec = EncoderSpec(
            model=name,
            revision=revision_of(model),
            prompts=prompts,
            max_length=max(own_limit(tower, task) for tower, task in tasks),
            precision=choose_precision(precision, str(model.device)),
            similarity="dot" if model.similarity_fn_name == "dot" else "cosine",
            assumed_pooling=assumed_pooling(name, model) or "",
            truncate_dim=model.truncate_dim,
        )
        pads = _pads(model, spec)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    logger.info("%s", spec)
    return Encoder(model, spec, cached=cached, workers=workers, pads=pads)


def _pads(model: SentenceTransformer, spec: EncoderSpec) -> bool:
    """Whether texts of different lengths may share a batch, by a few vectors of each task.

    Raises:
        ModelError: these are not what sentence-transformers makes of the same texts, each by itself.
    """
    texts = [*PROBES, *vocabulary_probes(model)]  # of two lengths at least, whatever the vocabulary
    plain = replace(spec, precision="fp32")
    encoders = [Encoder(model, plain, pads=pads) for pads in (True, False)]
    theirs = {DOCUMENT: model.encode_document, QUERY: model.encode_query}
    if encoders[0]._query is encoders[0]._document:
        del theirs[QUERY]
    prompts = {DOCUMENT: spec.prompts.document, QUERY: spec.prompts.query}
    options = {"normalize_embeddings": spec.similarity == "cosine", "show_progress_bar": False}
    try:
        expected = {
            task: np.concatenate([encode([text], prompt=prompts[task], **options) for text in texts])
            for task, encode in theirs.items()
        }
    except Exception as error:  # whatever a module's own code raises, a user sees one line
        if (known := machine_error(error)) is not None:
            raise known from error
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"sentence-transformers itself cannot encode with this model ({first})") from error
    for vectors in expected.values():
        if not np.isfinite(vectors).all() or not vectors.any():
            kind = "all zero" if np.isfinite(vectors).all() else "not finite"
            raise ModelError(f"its vectors are {kind}, so nothing can be ranked by them; train or save the model anew")
    off = np.inf
    for encoder in encoders:
        ours = {DOCUMENT: encoder._document.together, QUERY: encoder._query.together}
        off = float(np.max([_apart(ours[task](texts), expected[task]) for task in expected]))
        if off < CLOSE:
            return encoder._pads
        logger.info("vectors of a mixed batch are off by %.2g (padding: %s)", off, encoder._pads)
    raise ModelError(f"its vectors are off by {off:.2g} of those of sentence-transformers; this model is not supported")


def _apart(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """The largest difference, as a share of the largest value."""
    if ours.shape != theirs.shape:
        return np.inf
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-9))
