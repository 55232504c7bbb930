"""The stage ``select``: epoch and weights chosen on dev, on disk before any test score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from ranksaga.config.training import Training
from ranksaga.data.dataset import Qrels
from ranksaga.encode.encoder import Encoder
from ranksaga.errors import StageError
from ranksaga.files import read_json, write_json
from ranksaga.run.console import Console
from ranksaga.run.context import Context, base_state, copy_of_base
from ranksaga.run.measure import rankings_of
from ranksaga.run.selection import Candidate, DevScorer, DevSet, choose, dev_set, dev_size, relative, with_scores
from ranksaga.run.stage import Inputs, Summary
from ranksaga.run.stages import SELECT
from ranksaga.run.stages.baseline import Baselines
from ranksaga.run.stages.train import Trained, TrainingJob
from ranksaga.run.store import Entry

if TYPE_CHECKING:
    import torch

__all__ = ["Choice", "chosen_encoder", "dev_sets", "read_choice", "select"]

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class SelectInputs(Inputs):
    """Of one choice.

    ``asks_dev`` is whether dev queries decide. ``dev`` are (name, role, fingerprint) of the dev sets, whose content
    holds what the constants of their making changed.
    """

    STAGE = SELECT
    VERSION = 1

    encoder: str
    trained: tuple[str, ...]
    asks_dev: bool
    weights: tuple[float, ...]
    document_weights: tuple[float, ...] | None
    tolerance: float
    standard_errors: float
    dev: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Choice:
    """What selection decided: ``weight`` 0 is the base model. ``candidates`` hold dev scores by dataset."""

    epoch: int
    weight: float
    document_weight: float | None
    reason: str
    base: Mapping[str, float]
    candidates: tuple[Candidate, ...]

    @property
    def summary(self) -> Summary:
        """The decision without the scores."""
        values = {"epoch": self.epoch, "weight": self.weight, "document_weight": self.document_weight}
        return {**values, "reason": self.reason}

    def is_of(self, candidate: Candidate) -> bool:
        """Whether this candidate is the one that was chosen."""
        chosen = self.epoch, self.weight, self.document_weight
        return (candidate.epoch, candidate.weight, candidate.document_weight) == chosen


def dev_sets(context: Context, settings: Training, devs: Mapping[str, Qrels], baselines: Baselines) -> list[DevSet]:
    """What selection looks at of each dataset that has dev queries."""
    queries, depth = dev_size(settings)
    sets = []
    for member in context.datasets:
        dev = devs.get(member.name)
        if dev is None or len(dev) == 0:
            continue
        rankings = [rankings_of(kept[member.name], dev.query_rows) for kept in (baselines.dense, baselines.bm25)]
        one = dev_set(member.name, member.role, member.dataset, dev, rankings, queries=queries, depth=depth)
        if one is not None:
            sets.append(one)
    return sets


def select(context: Context, job: TrainingJob, trained: Trained, sets: Sequence[DevSet]) -> Entry:
    """Choose epoch and weights on dev, and keep the chosen ones. The choice is on disk before any test score."""
    settings, after = job.settings, job.settings.then_documents
    inputs = SelectInputs(
        encoder=context.encoder.spec.identity,
        trained=tuple(entry.identity for entry in trained.entries("").values()),
        # With nothing but the whole step to choose, the last epoch is taken as it is.
        asks_dev=settings.merge_weights != (1.0,) or settings.trains != "shared",
        weights=settings.merge_weights,
        document_weights=after.weights if after is not None else None,
        tolerance=settings.tolerance,
        standard_errors=settings.standard_errors,
        dev=tuple((dev.name, dev.role, dev.dataset.fingerprint) for dev in sets),
    )
    label = f"{job.system} {job.view}"
    work = partial(
        _select,
        settings=settings,
        trained=trained,
        sets=sets,
        base=context.encoder,
        console=context.console,
        label=label,
    )
    return context.store.work(label, inputs, work)


def chosen_encoder(context: Context, system: str, selected: Entry) -> Encoder:
    """The encoder around the chosen weights."""
    from ranksaga.encode.weight_files import load_weights

    if read_choice(selected).weight == 0:
        return context.encoder
    model = copy_of_base(context.encoder, context.recipe.systems[system])
    model.load_state_dict(load_weights(selected.folder / WEIGHTS))
    return context.encoder.with_model(model)


def read_choice(selected: Entry) -> Choice:
    """What a selection wrote down.

    Raises:
        StageError: it cannot be read.
    """
    file = selected.folder / "choice.json"
    try:
        stored = read_json(file)
        return Choice(**{**stored, "candidates": tuple(Candidate(**candidate) for candidate in stored["candidates"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"{file}: cannot be read ({error}); do that stage again with --from {SELECT.name}") from None


def _select(
    inputs: SelectInputs,
    folder: Path,
    *,
    settings: Training,
    trained: Trained,
    sets: Sequence[DevSet],
    base: Encoder,
    console: Console,
    label: str,
) -> Summary:
    from ranksaga.encode.weight_files import save_weights

    if not inputs.asks_dev:
        choice = Choice(trained.epochs, 1.0, None, "last epoch, as the settings say", {}, ())
    elif not any(dev.role == "trained" for dev in sets):
        choice = Choice(0, 0.0, None, "no dataset has dev queries to choose by (add a dev split): base kept", {}, ())
    else:
        choice = _choose(inputs, settings, trained, sets, base, console, label)
    if choice.weight > 0:
        mixed = _mixed(base_state(base, settings), trained.weights(choice.epoch), choice)
        save_weights(folder / WEIGHTS, mixed)
    write_json(folder / "choice.json", asdict(choice))
    return choice.summary


def _choose(
    inputs: SelectInputs,
    settings: Training,
    trained: Trained,
    sets: Sequence[DevSet],
    base: Encoder,
    console: Console,
    label: str,
) -> Choice:
    model, weights_of_base = copy_of_base(base, settings), base_state(base, settings)
    score = DevScorer(sets)
    scores_of_base = score(base)
    means = {name: float(values.mean()) for name, values in scores_of_base.items()}
    # Documents outermost: they are encoded once for each weight of theirs.
    rounds = list(product(inputs.document_weights or (None,), range(1, trained.epochs + 1)))
    candidates: list[Candidate] = []
    with console.progress(f"{SELECT.name} {label}", len(rounds) * len(inputs.weights)) as advance:
        for document_weight, epoch in rounds:
            # To the device once, not once for each candidate.
            tuned = {name: tensor.to(model.device) for name, tensor in trained.weights(epoch).items()}
            for weight in inputs.weights:
                candidate = Candidate(epoch, weight, document_weight, {}, {})
                model.load_state_dict(_mixed(weights_of_base, tuned, candidate))
                candidates.append(with_scores(candidate, scores_of_base, score(base.with_model(model))))
                advance(1)
    roles = {dev.name: dev.role for dev in sets}
    best = choose(means, candidates, roles, inputs.tolerance, inputs.standard_errors)
    if best is None:
        return Choice(0, 0.0, None, _reason_for_base(means, candidates), means, tuple(candidates))
    reason = "largest mean gain on dev that loses nowhere"
    if inputs.standard_errors > 0:
        reason += f" by more than its standard error × {inputs.standard_errors:g}"
    return Choice(best.epoch, best.weight, best.document_weight, reason, means, tuple(candidates))


def _reason_for_base(base: Mapping[str, float], candidates: Sequence[Candidate]) -> str:
    gentlest = max(candidates, key=lambda c: min(relative(base[name], score) for name, score in c.scores.items()))
    name = min(gentlest.scores, key=lambda name: relative(base[name], gentlest.scores[name]))
    change = 100 * relative(base[name], gentlest.scores[name])
    return f"no candidate gains without losing somewhere (the gentlest changes {name} by {change:+.1f}%): base kept"


def _mixed(
    base: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor], mix: Candidate | Choice
) -> dict[str, torch.Tensor]:
    """Base and tuned weights mixed, the documents' tower by a weight of its own where it has one."""
    from ranksaga.encode.towers import query_tower_state
    from ranksaga.train.model_merging import interpolate

    if mix.document_weight is None:
        return interpolate(base, tuned, mix.weight)
    of_queries = query_tower_state(base)
    parts = (of_queries, mix.weight), (base.keys() - of_queries, mix.document_weight)
    mixed: dict[str, torch.Tensor] = {}
    for names, weight in parts:
        mixed |= interpolate({name: base[name] for name in names}, {name: tuned[name] for name in names}, weight)
    return mixed
