"""Time and money of a run before it runs: what there is to compute, over how fast it goes.

On this machine how fast is measured, for some seconds, on the recipe's own texts. For a GPU that is not here it is
derived: the model's FLOP over 15% to 45% of the card's published peak, which is the range that encoders of this size
reach with batches of a hundred thousand tokens; what the processor does beside is measured here and taken as half to
twice as long there. A total is the sum of all lows and of all highs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ranksaga.config.recipe import Recipe
from ranksaga.estimate.machines import HOST_ELSEWHERE, UTILISATION, RentedGpu, ThisMachine
from ranksaga.estimate.probe import (
    Pace,
    Range,
    Steps,
    encode_pace,
    product_pace,
    sample_steps,
    sources_like,
    timed_steps,
)
from ranksaga.estimate.tokens import TokenCounter, shape_of
from ranksaga.estimate.workload import Load, SharedTraining, Work, trainings, workload
from ranksaga.run.console import Console
from ranksaga.run.context import Context
from ranksaga.run.gpu_prices import Gpu, find_gpu, known_price, price_note
from ranksaga.run.plan import draw_plan
from ranksaga.run.preflight import check_plan
from ranksaga.run.stages import BASELINE, DATA, REPORT, SCORE, SELECT, TRAIN
from ranksaga.run.store import Store

__all__ = ["Estimate", "Line", "estimate"]

PROBE_SECONDS = 10.0
# Recorded on two cores: BM25 took 0.17 ms a document (benchmarking/results/offline-study/run.json); what is in no
# stage took 11 s a dataset there and 3 s in a run of the quickstart.
BM25_SECONDS = Range(1e-4, 3e-4)
REPORT_SECONDS = Range(2.5, 15.0)


@dataclass(frozen=True)
class Line:
    """One row: seconds, and US dollars where an hour has a price. ``tokens`` are read by the model, at most."""

    stage: str
    work: str
    tokens: float
    seconds: Range
    usd: Range | None


@dataclass(frozen=True)
class Estimate:
    """What a run will take. ``how`` says where the rates are from; ``price`` is in US dollars an hour."""

    recipe: str
    machine: str
    how: str
    price: float | None
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def total(self) -> Line:
        """All lines together."""
        seconds = _sum([line.seconds for line in self.lines])
        return Line("total", "", sum(line.tokens for line in self.lines), seconds, _cost(seconds, self.price))

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "total": asdict(self.total)}

    def text(self) -> str:
        """For the terminal."""
        rows = [("stage", "work", "tokens", "time", "cost")]
        for line in (*self.lines, self.total):
            tokens = f"{line.tokens / 1e6:.2f}M" if line.tokens else ""
            rows.append((line.stage, line.work, tokens, _duration(line.seconds), _money(line.usd)))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        table = [
            f"{row[0]:{widths[0]}s}  {row[1]:{widths[1]}s}  "
            + "  ".join(f"{cell:>{width}s}" for cell, width in zip(row[2:], widths[2:], strict=True))
            for row in rows
        ]
        return "\n".join([f"{self.recipe} on {self.machine}", self.how, "", *table, "", *self.notes])


def estimate(recipe: Recipe, console: Console, *, gpu: str | None = None, price: float | None = None) -> Estimate:
    """Count what a recipe computes and say what it will take, without doing it.

    Datasets and the model are loaded (and downloaded where they are not here); nothing is written but a folder for
    the training probe, which is deleted.

    Args:
        recipe: what would be run.
        console: is told what is counted and probed.
        gpu: a card by name; none: this machine.
        price: US dollars an hour; none: the card's list price, or ``RANKSAGA_PRICE`` for this machine.

    Raises:
        RankSagaError: an unknown GPU, a dataset or a model that cannot be used.
    """
    card = find_gpu(gpu) if gpu is not None else None
    hourly = price if price is not None else card.usd_per_hour if card else known_price()
    with tempfile.TemporaryDirectory(prefix="ranksaga-estimate-") as nowhere:
        context = Context(recipe, Store(Path(nowhere)), console)
        counter, shape = TokenCounter(context.encoder), shape_of(context.encoder)
        plan, audit = draw_plan(context)
        check_plan(context, plan, audit)
        console.say("counting tokens")
        works = workload(context, plan, counter, shape)
        learned: list[tuple[SharedTraining, Steps]] = []
        paces: dict[str, Pace] = {}
        for training in trainings(context, plan):
            console.say(f"reading batches of {training.name} {', '.join(training.views)}")
            sources = sources_like(context, training)
            steps = sample_steps(context, training, sources, counter, shape)
            learned.append((training, steps))
            if card is None and training.name not in paces:
                console.say(f"probing training, {training.name}")
                paces[training.name] = timed_steps(context, training, sources, steps, PROBE_SECONDS)
        machine: ThisMachine | RentedGpu = (
            RentedGpu(card, counter.seconds / max(1, counter.tokens), recipe.precision)
            if card
            else _here(context, counter, paces)
        )
        lines = [
            Line(stage, work, tokens, seconds, _cost(seconds, hourly))
            for stage, work, tokens, seconds in _rows(context, machine, works, learned)
        ]
        notes = _notes(card, hourly, priced=price is not None)
        return Estimate(recipe.name, *_described(context, machine), hourly, tuple(lines), notes)


def _here(context: Context, counter: TokenCounter, train: dict[str, Pace]) -> ThisMachine:
    context.console.say("probing encoding and search")
    texts = [text for member in context.datasets for text in member.dataset.corpus.documents]
    encode = encode_pace(context.encoder, texts, counter, PROBE_SECONDS)
    width = int(context.encoder.model.get_embedding_dimension() or 1)
    return ThisMachine(encode, product_pace(width, context.recipe.depth), train)


def _rows(
    context: Context,
    machine: ThisMachine | RentedGpu,
    works: Sequence[Work],
    learned: Sequence[tuple[SharedTraining, Steps]],
) -> list[tuple[str, str, float, Range]]:
    """Stage, work, tokens and time, in the order of a run; a system's pieces of a stage are one row."""
    count = len(context.datasets)
    documents = sum(len(member.dataset.corpus) for member in context.datasets)
    found = [(DATA.name, f"{count} datasets, {documents:,} documents", 0.0, Range(0.0, 0.0))]
    read = _together([work for work in works if work.stage == BASELINE.name])
    words = (Load(host=documents * BM25_SECONDS.low), Load(host=documents * BM25_SECONDS.high))
    took = machine.seconds(read[0] + words[0], read[1] + words[1])
    found.append((BASELINE.name, "encode and search all datasets, BM25", read[1].tokens, took))
    for training, steps in learned:
        tokens = steps.total * steps.high.tokens + steps.setup_high.tokens
        for seed in range(training.settings.seeds):
            name = training.name + (f" seed {seed + 1}" if seed else "")
            what = f"{name} {', '.join(training.views)}: {steps.total:,} steps"
            found.append((TRAIN.name, what, tokens, machine.training(training.name, steps)))
    for stage, what in ((SELECT.name, "candidates on dev"), (SCORE.name, "encode and search again")):
        for system in context.recipe.systems:
            mine = [work for work in works if (work.stage, work.system) == (stage, system)]
            if mine:
                read = _together(mine)
                found.append((stage, f"{system}: {what}", read[1].tokens, machine.seconds(*read)))
    rest = machine.seconds(Load(host=count * REPORT_SECONDS.low), Load(host=count * REPORT_SECONDS.high))
    return [*found, (REPORT.name, "audit, hybrids, tests, pages", 0.0, rest)]


def _together(works: Sequence[Work]) -> tuple[Load, Load]:
    low = high = Load()
    for work in works:
        low, high = low + work.low, high + work.high
    return low, high


def _described(context: Context, machine: ThisMachine | RentedGpu) -> tuple[str, str]:
    spec = context.encoder.spec
    if isinstance(machine, RentedGpu):
        gpu = machine.gpu
        return (
            f"one {gpu.name}",
            f"derived, not measured: {spec.model}'s FLOP over {UTILISATION.low:.0%} to {UTILISATION.high:.0%} of the "
            f"card's peak ({machine.peak / 1e12:g} TFLOP/s in {gpu.precision(machine.precision)}, "
            f"{gpu.single / 1e12:g} in fp32), and the processor's "
            f"part as measured here, {HOST_ELSEWHERE.low:g} to {HOST_ELSEWHERE.high:g} times",
        )
    pace = machine.encode.seconds
    trained = ", ".join(
        f"{name} {1 / one.seconds.high:,.0f} to {1 / one.seconds.low:,.0f}" for name, one in machine.train.items()
    )
    return (
        f"this machine ({context.encoder.device})",
        f"measured: {spec.model} in {spec.precision} reads {1 / pace.high:,.0f} to {1 / pace.low:,.0f} tokens a second "
        f"({machine.encode.probes} probes); training, tokens a second: {trained}",
    )


def _notes(card: Gpu | None, price: float | None, *, priced: bool) -> tuple[str, ...]:
    notes = ["With nothing in the cache; downloads and the start of a machine are not counted."]
    if price is None:
        notes.append("Costs are shown where an hour has a price: --price USD_PER_HOUR.")
    elif card is not None and not priced:
        doubt = "" if card.confirmed else f" (the card's own: unconfirmed for {card.name})"
        notes.append(f"{price:.2f} dollars an hour: {price_note()}{doubt}.")
    else:
        notes.append(f"{price:.2f} dollars an hour, as given.")
    return tuple(notes)


def _sum(ranges: Sequence[Range]) -> Range:
    return Range(sum(one.low for one in ranges), sum(one.high for one in ranges))


def _cost(seconds: Range, price: float | None) -> Range | None:
    return None if price is None else Range(seconds.low * price / 3600, seconds.high * price / 3600)


def _duration(seconds: Range) -> str:
    if seconds.high < 0.5:
        return "~0"
    unit, size = ("s", 1.0) if seconds.high < 90 else ("min", 60.0) if seconds.high < 5400 else ("h", 3600.0)
    low, high = (
        f"{value / size:.0f}" if value / size >= 10 else f"{value / size:.1f}" for value in (seconds.low, seconds.high)
    )
    return f"{low} - {high} {unit}"


def _money(usd: Range | None) -> str:
    return "" if usd is None else f"${usd.low:.2f} - {usd.high:.2f}"
