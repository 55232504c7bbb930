"""The selection stage: epoch and weights chosen on dev, on disk before any test score."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ranksaga.encode.encoder import Encoder
from ranksaga.errors import StageError
from ranksaga.files import read_json, write_json
from ranksaga.run.context import Context
from ranksaga.run.learn import Lesson, Trained
from ranksaga.run.select import Candidate, DevScorer, DevSet, choose, judged, relative
from ranksaga.run.store import Entry

__all__ = ["Choice", "chosen_encoder", "read_choice", "select"]

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Choice:
    """What selection decided: ``weight`` 0 is the base model. ``candidates`` hold dev scores by dataset."""

    epoch: int
    weight: float
    document_weight: float | None
    reason: str
    base: Mapping[str, float]
    candidates: tuple[Candidate, ...]

    def gain(self, datasets: Collection[str]) -> float:
        """Mean relative change on these datasets' dev; 0 where the base model stays."""
        found = [one for one in self.candidates if (one.epoch, one.weight, one.document_weight) == self._chosen]
        return max((_mean_gain(self.base, one.scores, datasets) for one in found), default=0.0)

    @property
    def _chosen(self) -> tuple[int, float, float | None]:
        return self.epoch, self.weight, self.document_weight


def select(context: Context, lesson: Lesson, trained: Trained, sets: Sequence[DevSet]) -> Entry:
    """Choose epoch and weights on dev, and keep the chosen ones. The choice is on disk before any test score."""
    settings = lesson.settings
    inputs = {
        "trained": [one.identity for one in trained.entries("").values()],
        "weights": [settings.merge_weights, settings.documents.weights if settings.documents is not None else None],
        "tolerance": [settings.tolerance, settings.standard_errors],
        "dev": [[one.name, one.role, one.dataset.fingerprint] for one in sets],
        "encoder": context.encoder.spec.identity,
    }

    def work(folder: Path) -> dict[str, Any]:
        from ranksaga.encode.weight_files import save_weights

        if settings.merge_weights == (1.0,) and settings.towers == "shared" and not settings.search:
            # The first study's way: the last epoch as it is, and no dev score asked.
            choice = Choice(trained.epochs, 1.0, None, "last epoch, as the preset says", {}, ())
        else:
            choice = _choose(context, lesson, trained, sets)
        if choice.weight > 0:
            base = context.base_state(settings)
            save_weights(folder / WEIGHTS, _mixed(base, trained.weights(choice.epoch), choice))
        write_json(folder / "choice.json", asdict(choice))
        return {
            "epoch": choice.epoch,
            "weight": choice.weight,
            "document_weight": choice.document_weight,
            "reason": choice.reason,
        }

    return context.store.work("select", f"{lesson.preset} {lesson.view}", inputs, work)


def chosen_encoder(context: Context, preset: str, selected: Entry) -> Encoder:
    """The encoder around the chosen weights."""
    from ranksaga.encode.weight_files import load_weights

    if selected.summary["weight"] == 0:
        return context.encoder
    model = context.fresh_model(context.recipe.training[preset])
    model.load_state_dict(load_weights(selected.folder / WEIGHTS))
    return context.encoder.with_model(model)


def read_choice(selected: Entry) -> Choice:
    """What a selection wrote down."""
    file = selected.folder / "choice.json"
    try:
        stored = read_json(file)
        return Choice(**{**stored, "candidates": tuple(Candidate(**candidate) for candidate in stored["candidates"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"{file}: cannot be read ({error}); do that stage again with --from select") from None


def _choose(context: Context, lesson: Lesson, trained: Trained, sets: Sequence[DevSet]) -> Choice:
    if not any(one.role == "trained" for one in sets):
        return Choice(0, 0.0, None, "no dataset has dev queries to choose by (add a dev split): base kept", {}, ())
    settings = lesson.settings
    model, base_state = context.fresh_model(settings), context.base_state(settings)
    score = DevScorer(sets)
    of_base = score(context.encoder)
    base = {name: float(values.mean()) for name, values in of_base.items()}
    of_documents = (None,) if settings.documents is None else settings.documents.weights
    # Documents outermost: they are encoded once for each weight of theirs.
    rounds = list(product(of_documents, range(1, trained.epochs + 1)))
    candidates: list[Candidate] = []
    total = len(rounds) * len(settings.merge_weights)
    with context.voice.progress(f"select {lesson.preset} {lesson.view}", total) as advance:
        for document_weight, epoch in rounds:
            # To the device once, not once for each candidate.
            tuned = {name: tensor.to(model.device) for name, tensor in trained.weights(epoch).items()}
            for weight in settings.merge_weights:
                candidate = Candidate(epoch, weight, document_weight, {}, {})
                model.load_state_dict(_mixed(base_state, tuned, candidate))
                candidates.append(judged(candidate, of_base, score(context.encoder.with_model(model))))
                advance(1)
    roles = {one.name: one.role for one in sets}
    best = choose(base, candidates, roles, settings.tolerance, settings.standard_errors)
    if best is None:
        worst = max(candidates, key=lambda c: min(relative(base[name], score) for name, score in c.scores.items()))
        name = min(worst.scores, key=lambda name: relative(base[name], worst.scores[name]))
        change = 100 * relative(base[name], worst.scores[name])
        reason = (
            f"no candidate gains without losing somewhere (the gentlest changes {name} by {change:+.1f}%): base kept"
        )
        return Choice(0, 0.0, None, reason, base, tuple(candidates))
    reason = "largest mean gain on dev that loses nowhere"
    if settings.standard_errors > 0:
        reason += f" by more than its standard error × {settings.standard_errors:g}"
    return Choice(best.epoch, best.weight, best.document_weight, reason, base, tuple(candidates))


def _mixed(base: Mapping[str, Any], tuned: Mapping[str, Any], mix: Candidate | Choice) -> dict[str, Any]:
    """Base and tuned weights mixed, the documents' tower by a weight of its own where it has one."""
    from ranksaga.encode.towers import query_tower_state
    from ranksaga.train.model_merging import interpolate

    if mix.document_weight is None:
        return interpolate(base, tuned, mix.weight)
    of_queries = query_tower_state(base)
    parts = (of_queries, mix.weight), (base.keys() - of_queries, mix.document_weight)
    mixed: dict[str, Any] = {}
    for names, weight in parts:
        mixed |= interpolate({name: base[name] for name in names}, {name: tuned[name] for name in names}, weight)
    return mixed


def _mean_gain(base: Mapping[str, float], scores: Mapping[str, float], datasets: Collection[str]) -> float:
    return float(np.mean([relative(base[name], score) for name, score in scores.items() if name in datasets]))
