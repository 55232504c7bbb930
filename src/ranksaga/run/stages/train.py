"""The stage ``train``: one training for each system, view of the splits and seed; then documents, where asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ranksaga.config.training import Distilled, Documents, Labelled, Tower, Training
from ranksaga.data.dataset import Qrels
from ranksaga.encode.encoder import Encoder
from ranksaga.run.console import Console
from ranksaga.run.context import Context, RunDataset, copy_of_base
from ranksaga.run.measure import hash_of, vectors_of
from ranksaga.run.sources import labelled_source, source_constants, teacher_source
from ranksaga.run.stage import Inputs, Summary
from ranksaga.run.stages import TRAIN
from ranksaga.run.store import Entry
from ranksaga.run.workers import RunWorkers, TrainingOptions
from ranksaga.train import batches, distill, step, trainer

if TYPE_CHECKING:
    import torch

    from ranksaga.train.pairs import TrainingPairs
    from ranksaga.train.teacher import Teacher
    from ranksaga.train.trainer import Progress

__all__ = ["Trained", "TrainingJob", "TrainingSummary", "documents_phase", "train"]

REPEAT = 13  # a stream of random draws, beside those of ``sources``
# Weight against the base of the queries' tower that documents learn from.
QUERY_WEIGHT = 0.75


@dataclass(frozen=True)
class TrainInputs(Inputs):
    """Of one training.

    It is known by what it learns from, not by its view: views that teach the same share one training. The vectors of
    the base model that it reads follow from ``encoder`` and the datasets; what else the baseline holds, it does not
    read. ``datasets`` are (fingerprint, hash of the judgments that train) in the order of the recipe, which decides the
    order of the batches; ``start`` is what the second phase begins with.
    """

    STAGE = TRAIN
    VERSION = 3  # 2: a teacher's corrections and temperature are in spreads of the base model's similarities

    encoder: str
    settings: Mapping[str, Any]
    seed: int
    start: tuple[str | float, ...]
    datasets: tuple[tuple[str, str], ...]
    constants: Mapping[str, Any]


@dataclass(frozen=True)
class TrainingSummary:
    """What a training reports: files of the weights after each epoch, and what each teacher's mix is, by dataset."""

    epochs: tuple[str, ...]
    steps: int
    pairs: int
    seconds: float
    capped: bool
    teachers: Mapping[str, Mapping[str, float]]

    @classmethod
    def of(cls, entry: Entry) -> TrainingSummary:
        """That of a training which is done."""
        return cls(**{**entry.summary, "epochs": tuple(entry.summary["epochs"])})


@dataclass(frozen=True)
class TrainingJob:
    """What one model is trained on and how: by dataset the judgments, and the measured base model for mining.

    ``repeat`` 0, 1, ... are trainings on the same with seeds of their own.
    """

    system: str
    settings: Training
    view: str
    training: Mapping[str, Qrels]
    baselines: Mapping[str, Entry]
    repeat: int = 0

    def seed(self, first: int) -> int:
        """The seed of this training, in a run with the seed ``first``."""
        if self.repeat == 0:
            return first
        return int(np.random.SeedSequence([first, REPEAT, self.repeat]).generate_state(1)[0])


@dataclass(frozen=True)
class Trained:
    """What a job left: trainings that differ in their seed alone, and what documents learned after them."""

    queries: tuple[Entry, ...]
    documents: Entry | None

    @property
    def epochs(self) -> int:
        """Of each training."""
        return len(TrainingSummary.of(self.queries[0]).epochs)

    def weights(self, epoch: int) -> dict[str, torch.Tensor]:
        """The weights after an epoch (1, 2, ...): the mean over the seeds, the documents' tower from its own training
        where there was one."""
        from ranksaga.encode.towers import query_tower_state
        from ranksaga.train.model_merging import average

        states = [_weights(entry, epoch - 1) for entry in self.queries]
        state = average(states) if len(states) > 1 else states[0]
        if self.documents is None:
            return state
        of_queries = query_tower_state(state)
        of_documents = _weights(self.documents, -1)
        return {name: state[name] if name in of_queries else of_documents[name] for name in state}

    def entries(self, view: str) -> dict[str, Entry]:
        """The trainings by a name for people."""
        named = {view if number == 0 else f"{view} seed {number + 1}": one for number, one in enumerate(self.queries)}
        return named if self.documents is None else {**named, f"{view} documents": self.documents}


def _weights(entry: Entry, epoch: int) -> dict[str, torch.Tensor]:
    from ranksaga.encode.weight_files import load_weights

    return load_weights(entry.folder / TrainingSummary.of(entry).epochs[epoch])


def train(context: Context, job: TrainingJob) -> Trained:
    """Fine-tune the base model, once for each seed, and then documents where the settings ask."""
    repeats = [replace(job, repeat=repeat) for repeat in range(job.settings.seeds)]
    trained = Trained(tuple(context.workers.map(partial(_phase, context), repeats)), None)
    if job.settings.then_documents is None:
        return trained
    return replace(trained, documents=_phase(context, job, trained))


class DocumentsPhase(Distilled):
    """A training's second phase: the documents' tower learns, from a queries' tower that no longer changes."""

    @property
    def trains(self) -> Tower:
        """The documents' tower."""
        return "document"


def documents_phase(settings: Training, after: Documents) -> DocumentsPhase:
    """The settings of the second phase."""
    changed = {"epochs": after.epochs, "learning_rate": after.learning_rate, "seeds": 1, "documents": None}
    return DocumentsPhase.model_validate({**settings.model_dump(), **changed})


def _phase(context: Context, job: TrainingJob, before: Trained | None = None) -> Entry:
    """One training; keeps the weights of every epoch.

    Args:
        context: of the run.
        job: what is learned.
        before: the trainings of the queries' tower, which the documents' tower now learns from; none: the first phase.
    """
    settings = job.settings
    start: tuple[str | float, ...] = ()
    name = f"{job.system} {job.view}" + (f" seed {job.repeat + 1}" if job.repeat else "")
    after = settings.then_documents
    if before is not None and after is not None:
        settings = documents_phase(settings, after)
        start = (*(entry.identity for entry in before.queries), QUERY_WEIGHT)
        name += " documents"
    members = [member for member in context.datasets if member.name in job.training]
    inputs = TrainInputs(
        encoder=context.encoder.spec.identity,
        # What is off is left out, so that a setting which comes later changes no identity of today.
        settings=settings.model_dump(mode="json", exclude=trainer.ELSEWHERE, exclude_none=True),
        seed=job.seed(context.recipe.seed),
        start=start,
        datasets=tuple((member.dataset.fingerprint, hash_of(job.training[member.name])) for member in members),
        constants=_constants(settings),
    )
    work = partial(
        _fit,
        settings=settings,
        members=members,
        job=job,
        before=before,
        base=context.encoder,
        workers=context.workers,
        console=context.console,
        label=name,
    )
    return context.store.work(name, inputs, work)


def _constants(settings: Training) -> dict[str, Any]:
    """The constants that a training with these settings depends on."""
    values: dict[str, Any] = {"FORMAT": trainer.FORMAT, "CLIP": step.CLIP, **source_constants(settings)}
    if isinstance(settings, Distilled):
        return {**values, "ANCHOR": distill.ANCHOR, "NEARBY": distill.NEARBY, "CANDIDATES": distill.CANDIDATES}
    return {**values, "DEFAULT_SCALE": step.DEFAULT_SCALE, "PATIENCE": batches.PATIENCE}


def _fit(
    inputs: TrainInputs,
    folder: Path,
    *,
    settings: Training,
    members: Sequence[RunDataset],
    job: TrainingJob,
    before: Trained | None,
    base: Encoder,
    workers: RunWorkers,
    console: Console,
    label: str,
) -> Summary:
    from ranksaga.train.model_merging import interpolate

    sources: Sequence[TrainingPairs] | Sequence[Teacher]
    teachers: list[Teacher] = []
    if isinstance(settings, Labelled):
        sources = [
            labelled_source(member.dataset, job.training[member.name], settings, vectors_of(job.baselines[member.name]))
            for member in members
        ]
    elif isinstance(settings, Distilled):
        for member in members:
            vectors, judgments = vectors_of(job.baselines[member.name]), job.training[member.name]
            source = teacher_source(member.dataset, judgments, settings.distillation, vectors, base, inputs.seed)
            queries = f"{len(source.pseudo)} pseudo-queries, {len(source.train.query_rows)} training queries"
            console.say(f"  {member.name}: {queries}, teacher {source.mix}")
            teachers.append(source)
        sources = teachers
    options = TrainingOptions(
        query_prompt=base.spec.prompts.query,
        document_prompt=base.spec.prompts.document,
        max_length=base.spec.max_length,
        precision=base.spec.precision,
        seed=inputs.seed,
        folder=folder,
    )
    model = copy_of_base(base, settings)
    if before is not None:
        model.load_state_dict(interpolate(model.state_dict(), before.weights(before.epochs), QUERY_WEIGHT))
    with _bar(console, f"{TRAIN.name} {label}") as progress:
        result = workers.train(model, sources, settings, progress=progress, **options)
    epochs = tuple(str(path.relative_to(folder)) for path in result.epochs)
    mixes = {teacher.name: asdict(teacher.mix) for teacher in teachers}
    return asdict(TrainingSummary(epochs, result.steps, result.pairs, result.seconds, result.capped, mixes))


@contextmanager
def _bar(console: Console, label: str) -> Iterator[Progress]:
    """A bar over optimizer steps, opened at the first one, when their number is known."""
    with ExitStack() as stack:
        advance: Callable[..., None] | None = None
        seen = 0

        def progress(*, step: int, total: int, loss: float, pairs_per_second: float, seconds_left: float) -> None:
            nonlocal advance, seen
            if advance is None:
                advance = stack.enter_context(console.progress(label, total))
            advance(step - seen, note=f"loss {loss:.3f}, {pairs_per_second:.0f} pairs/s, {seconds_left:.0f} s left")
            seen = step

        yield progress
