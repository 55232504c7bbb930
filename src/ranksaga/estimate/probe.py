"""How fast this machine does what a run does: seconds of real work on the recipe's own texts, repeated.

Nothing is kept: vectors go to no cache, and a training is broken off after some steps in a folder that is deleted.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranksaga.config.training import Distillation, Distilled, Labelled, Training
from ranksaga.encode.encoder import Encoder
from ranksaga.encode.task_encoder import TOKEN_BUDGET
from ranksaga.estimate.tokens import Shape, TokenCounter
from ranksaga.estimate.workload import Load, SharedTraining
from ranksaga.run.context import Context, RunDataset, copy_of_base
from ranksaga.run.sources import PSEUDO, bank_of

__all__ = [
    "Pace",
    "Range",
    "Steps",
    "encode_pace",
    "product_pace",
    "range_of",
    "sample_steps",
    "sources_like",
    "timed_steps",
]

# However alike the repeats are: minutes later the machine is warmer, or busier. Two whole runs lay 7% and 14% beside
# the middle of what was probed.
LEAST_SPREAD = 0.15
REPEATS = 3
STEPS_READ = {"labelled": 100, "distilled": 12}  # batches of a training that are built and counted


@dataclass(frozen=True)
class Range:
    """From ``low`` to ``high``."""

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)


@dataclass(frozen=True)
class Pace:
    """Seconds for one unit of work, by repeated probes."""

    seconds: Range
    probes: int


@dataclass(frozen=True)
class Steps:
    """A training's steps: how many, one step's load, by the standard error of the mean more or less, and the tokens
    of its first steps, whose times can be compared with them. ``setup`` is what comes before the first step."""

    total: int
    low: Load
    high: Load
    first_tokens: tuple[float, ...]
    setup_low: Load
    setup_high: Load


def range_of(values: Sequence[float]) -> Range:
    """From the least to the largest, and at least 15% around their mean to both sides."""
    mean = float(np.mean(values))
    return Range(min(*values, (1 - LEAST_SPREAD) * mean), max(*values, (1 + LEAST_SPREAD) * mean))


def encode_pace(encoder: Encoder, texts: Sequence[str], counter: TokenCounter, seconds: float) -> Pace:
    """Seconds a token of encoding, measured on texts spread over all lengths, after a warm-up.

    Args:
        encoder: its cache is not asked.
        texts: of the recipe, all of them.
        counter: of tokens.
        seconds: that the probes may take together, roughly.
    """
    plain = Encoder(encoder.model, encoder.spec)
    order = np.argsort([len(text) for text in texts], kind="stable")
    warm = [texts[row] for row in order[_spread(len(order), 16, 0.5)]]
    plain.encode_documents(warm)
    began = time.perf_counter()
    plain.encode_documents(warm)
    each = (time.perf_counter() - began) / len(warm)
    count = int(np.clip(seconds / REPEATS / max(each, 1e-9), 16, 1024))
    paces = []
    for repeat in range(REPEATS):
        chosen = [texts[row] for row in order[_spread(len(order), count, (repeat + 0.5) / REPEATS)]]
        began = time.perf_counter()
        plain.encode_documents(chosen)
        paces.append((time.perf_counter() - began) / float(counter.documents(chosen).sum()))
    return Pace(range_of(paces), REPEATS)


def _spread(size: int, count: int, offset: float) -> NDArray[np.int64]:
    """About ``count`` places of ``size``, evenly, the first one ``offset`` of a distance in."""
    places: NDArray[np.int64] = ((np.arange(min(count, size)) + offset) * size / min(count, size)).astype(np.int64)
    return np.minimum(places, size - 1)


def product_pace(width: int, depth: int) -> Pace:
    """Seconds a FLOP of exact search, of 256 queries in 65,536 random vectors."""
    from ranksaga.retrieve.search import search

    rng = np.random.default_rng(0)
    queries = rng.standard_normal((256, width), dtype=np.float32)
    documents = rng.standard_normal((65536, width), dtype=np.float32)
    rows, ties = np.arange(256, dtype=np.int32), np.arange(65536, dtype=np.int32)
    paces = []
    for repeat in range(REPEATS + 1):
        began = time.perf_counter()
        search(queries, [(0, documents)], query_rows=rows, ties=ties, depth=depth)
        if repeat:
            paces.append((time.perf_counter() - began) / (2.0 * 256 * 65536 * width))
    return Pace(range_of(paces), REPEATS)


def sources_like(context: Context, training: SharedTraining) -> list[Any]:
    """What a training learns from, with random vectors where the run has those of the base model: the same texts, the
    same sizes, no corpus encoded."""
    members = [member for member in context.datasets if member.name in training.judgments]
    settings = training.settings
    if isinstance(settings, Distilled):
        return [_teacher_like(context, training, settings.distillation, member) for member in members]
    from ranksaga.train.pairs import labelled_pairs

    titles = not isinstance(settings, Labelled) or settings.titles
    return [labelled_pairs(member.dataset, training.judgments[member.name], titles=titles) for member in members]


def _teacher_like(context: Context, training: SharedTraining, options: Distillation, member: RunDataset) -> Any:
    from ranksaga.retrieve.lexical import LexicalIndex
    from ranksaga.train.pseudo_queries import pseudo_queries
    from ranksaga.train.teacher import UNCHOSEN, Mix, Teacher

    # The stream of the real one, so that the same pseudo-queries are drawn.
    rng = np.random.default_rng([context.recipe.seed, PSEUDO, int(member.dataset.fingerprint[:8], 16)])
    dataset, rows = bank_of(member.dataset, training.judgments[member.name], rng)
    pseudo = tuple(pseudo_queries(dataset.corpus, options.pseudo_queries, rng))
    width = context.encoder.model.get_embedding_dimension() or 1
    train = dataset.qrels["train"]
    documents, asked, judged = (
        _directions(rng, count, width) for count in (len(rows), len(pseudo), len(train.query_rows))
    )
    # Hubness is computed once and then only subtracted.
    mix = replace(Mix(**UNCHOSEN), hubness=0.0)
    return Teacher(dataset, LexicalIndex.of(dataset), mix, documents, pseudo, asked, train, judged)


def _directions(rng: np.random.Generator, rows: int, width: int) -> NDArray[np.float32]:
    vectors = rng.standard_normal((rows, width), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def sample_steps(
    context: Context, training: SharedTraining, sources: Sequence[Any], counter: TokenCounter, shape: Shape
) -> Steps:
    """Count a training's steps, and the load of one by building some of its batches: all where they are few."""
    from ranksaga.train.embed import Embedder
    from ranksaga.train.trainer import _plan

    settings, spec = training.settings, context.encoder.spec
    batches = _plan(sources, settings, context.recipe.seed)
    total = min(batches.per_epoch * settings.epochs, settings.max_steps or 2**31)
    labelled = settings if isinstance(settings, Labelled) else None
    prompts = (spec.prompts.query, spec.prompts.document) if labelled is None or labelled.prompts else ("", "")
    length = min(settings.max_length or spec.max_length, spec.max_length)
    embedder = Embedder(context.encoder.model, prompts, max_length=length, precision=spec.precision)
    read = STEPS_READ["distilled" if labelled is None else "labelled"]
    numbers = np.unique([*range(min(total, 8)), *_spread(total, read, 0.5).tolist()])
    loads = []
    for number in numbers.tolist():
        began = time.perf_counter()
        batch = batches.get(*divmod(number, batches.per_epoch))
        loads.append(_of_step(batch, embedder, shape, settings, time.perf_counter() - began))
    # The first of an epoch also plans it.
    host = float(np.median([one.host for one in loads]))
    even = [replace(one, host=host) for one in loads]
    low, high = _around(even, complete=len(numbers) == total)
    setup_low, setup_high = _setup(context, training, sources, counter, shape, host)
    return Steps(total, low, high, tuple(one.tokens for one in loads[: min(total, 8)]), setup_low, setup_high)


def _of_step(batch: Any, embedder: Any, shape: Shape, settings: Training, host: float) -> Load:
    """Forward, backward (twice a forward) and, of a large batch, the second forward of gradient caching."""
    from ranksaga.train.step import CACHE_ABOVE

    parts = embedder.passes(batch.queries, batch.documents)
    by_tower = [
        np.array(
            [len(row) for part in parts if part.tower == tower for row in part.tokens],
            dtype=np.int32,
        )
        for tower in sorted({part.tower for part in parts})
    ]
    texts = sum(len(lengths) for lengths in by_tower)
    # Mined negatives are not known yet; each is as long as the documents that are.
    more = 1 + settings.hard_negatives * len(batch.documents) / texts if isinstance(settings, Labelled) else 1.0
    padded = sum(len(lengths) * int(lengths.max()) for lengths in by_tower) * more
    passes = 4 if padded > CACHE_ABOVE["cuda"] else 3
    # What a tower reads together is cut together, texts of like length into a pass.
    each = [shape.forward(lengths, TOKEN_BUDGET["cuda"]) for lengths in by_tower]
    forward = passes * sum(each)
    if settings.trains == "document":  # queries are read, and learn nothing
        forward -= (passes - 1) * each[0]
    products = 0.0
    if batch.bank is not None:
        products = 4.0 * len(batch.queries) * len(batch.bank.documents) * shape.width
    return Load(sum(float(lengths.sum()) for lengths in by_tower) * more, forward * more, products, host)


def _around(loads: Sequence[Load], *, complete: bool) -> tuple[Load, Load]:
    """The mean load of a step, two standard errors less and more where not all were read."""
    total = Load()
    for one in loads:
        total = total + one
    mean = total.times(1 / len(loads))
    if complete or len(loads) < 2:
        return mean, mean
    tokens = [one.tokens for one in loads]
    error = 2 * float(np.std(tokens, ddof=1)) / len(tokens) ** 0.5 / mean.tokens
    return mean.times(max(0.0, 1 - error)), mean.times(1 + error)


def _setup(
    context: Context, training: SharedTraining, sources: Sequence[Any], counter: TokenCounter, shape: Shape, host: float
) -> tuple[Load, Load]:
    """Before a distillation: pseudo-queries are encoded, and teachers are tried on training queries; where BM25 does
    not help, passages are encoded too, about as much as the corpus."""
    low = high = Load()
    if isinstance(training.settings, Labelled):
        return low, high
    for source in sources:
        lengths = counter.queries([one.text for one in source.pseudo])
        asked = Load(float(lengths.sum()), shape.forward(lengths, TOKEN_BUDGET["cuda"]))
        low, high = low + asked, high + asked
        if len(source.train):
            read = counter.documents(source.dataset.corpus.documents)
            # A choice among 8 to 14 mixes on at most 300 queries, about two steps' worth each.
            high = high + Load(float(read.sum()), shape.forward(read, TOKEN_BUDGET["cuda"]), 0.0, 30 * host)
    return low, high


class _Enough(Exception):
    pass


def timed_steps(
    context: Context, training: SharedTraining, sources: Sequence[Any], steps: Steps, seconds: float
) -> Pace:
    """Seconds a token of training steps, everything included, measured on the first steps of the real training.

    The first step warms up. With fewer than three after it, 30% to both sides; else two standard errors.
    """
    from ranksaga.train.trainer import train

    marks = [time.perf_counter()]

    def progress(**_: Any) -> None:
        marks.append(time.perf_counter())
        if len(marks) > len(steps.first_tokens) or (len(marks) > 3 and marks[-1] - marks[0] > seconds):
            raise _Enough

    spec = context.encoder.spec
    with tempfile.TemporaryDirectory(prefix="ranksaga-probe-") as folder, contextlib.suppress(_Enough):
        train(
            copy_of_base(context.encoder, training.settings),
            sources,
            training.settings,
            query_prompt=spec.prompts.query,
            document_prompt=spec.prompts.document,
            max_length=spec.max_length,
            precision=spec.precision,
            seed=context.recipe.seed,
            folder=Path(folder),
            progress=progress,
        )
    return _pace_of(marks, steps.first_tokens)


def _pace_of(marks: Sequence[float], tokens: Sequence[float]) -> Pace:
    """From when the training began and each step ended, and the steps' tokens. A run of one step has no other."""
    times, counts = np.diff(marks), np.array(tokens[: len(marks) - 1])
    if len(times) > 1:
        times, counts = times[1:], counts[1:]
    pace = float(times.sum() / counts.sum())
    error = 0.3
    if len(times) >= 3:
        residual = times - pace * counts
        error = max(LEAST_SPREAD, 2 * float(np.std(residual, ddof=1)) * len(times) ** 0.5 / float(times.sum()))
    return Pace(Range(pace * max(0.0, 1 - error), pace * (1 + error)), len(times))
