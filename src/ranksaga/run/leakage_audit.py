"""The leakage audit of a run: every training or dev query against every scored query, within and across datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ranksaga.compare.results import QueryGroup
from ranksaga.data.dataset import Qrels
from ranksaga.data.leakage import Kind, LeakageExample, LeakageFinding, find_leaks
from ranksaga.data.splits import Split
from ranksaga.run.context import RunDataset

__all__ = ["Audit", "FoundLeak"]

EXAMPLES = 3
KINDS: Mapping[Kind, str] = {
    "exact": "equal to a training query",
    "near-copy": "near-copy in training",
}


@dataclass(frozen=True)
class FoundLeak:
    """A training query close to a scored one, by dataset and id; rows for those who have the datasets."""

    kind: Kind
    training_name: str
    training_id: str
    training_row: int
    scored_name: str
    scored_id: str
    scored_row: int
    similarity: float


class Audit:
    """What leaks between the splits of a run, and what is done about it.

    Cross-fitted datasets are audited against the others here; within themselves their folds keep
    near-copies apart, so nothing can leak there.
    """

    def __init__(self, datasets: Sequence[RunDataset], splits: Mapping[str, Split], policy: str) -> None:
        self._datasets = {member.name: member for member in datasets}
        self._splits = splits
        self._policy = policy

    @cached_property
    def leaks(self) -> tuple[FoundLeak, ...]:
        """All close pairs of a training (or dev) query and a scored query."""
        found: list[FoundLeak] = []
        for training in self._datasets.values():
            rows = self._training_rows(training.name)
            for scored in self._datasets.values():
                if len(rows) and not (training is scored and self._splits[scored.name].folds):
                    found += self._between(training, rows, scored)
        return tuple(found)

    @cached_property
    def dropped(self) -> Mapping[str, NDArray[np.int32]]:
        """By dataset the query rows that neither train nor select; empty unless the policy is to drop."""
        if self._policy != "drop":
            return {}
        rows: dict[str, set[int]] = {}
        for leak in self.leaks:
            rows.setdefault(leak.training_name, set()).add(leak.training_row)
        return {name: np.array(sorted(one), dtype=np.int32) for name, one in rows.items()}

    def without_leaks(self, name: str, judged: Qrels) -> Qrels:
        """Judgments of a dataset less its dropped queries."""
        rows = judged.query_rows
        kept = rows[~np.isin(rows, self.dropped.get(name, np.empty(0, dtype=np.int32)))]
        return judged if len(kept) == len(rows) else judged.only_queries(kept)

    def groups(self) -> tuple[QueryGroup, ...]:
        """Scored queries with a near-copy in training, those without, and those whose gold document is new."""
        found: list[QueryGroup] = []
        for name, member in self._datasets.items():
            split = self._splits[name]
            if split.folds or member.role == "guard":
                continue
            ids = member.dataset.queries.ids
            rows = split.scored.query_rows
            touched = {leak.scored_row for leak in self.leaks if leak.scored_name == name}
            new = self._unseen_gold(split)
            parts = {
                "near-copy in training": [row for row in rows if row in touched],
                "no near-copy in training": [row for row in rows if row not in touched],
                "gold document never a training positive": [row for row in rows if row in new],
            }
            found += [
                QueryGroup(member.dataset.name, part, tuple(ids[row] for row in members))
                for part, members in parts.items()
            ]
        return tuple(found)

    def findings(self) -> tuple[LeakageFinding, ...]:
        """Counts with examples, by scored dataset and kind."""
        found = []
        for name, member in self._datasets.items():
            for kind, title in KINDS.items():
                leaks = [leak for leak in self.leaks if leak.scored_name == name and leak.kind == kind]
                if not leaks:
                    continue
                found.append(
                    LeakageFinding(
                        member.dataset.name,
                        title,
                        len({leak.scored_row for leak in leaks}),
                        len(self._splits[name].scored.query_rows),
                        len({(leak.training_name, leak.training_row) for leak in leaks})
                        if self._policy == "drop"
                        else 0,
                        tuple(
                            self._example(leak) for leak in sorted(leaks, key=lambda one: -one.similarity)[:EXAMPLES]
                        ),
                    )
                )
        return tuple(found)

    def _training_rows(self, name: str) -> NDArray[np.int32]:
        shipped = self._splits[name].shipped  # a guard's dev selects, too
        return np.union1d(shipped.train.query_rows, shipped.dev.query_rows).astype(np.int32)

    def _between(self, training: RunDataset, rows: NDArray[np.int32], scored: RunDataset) -> list[FoundLeak]:
        others = self._splits[scored.name].scored.query_rows
        left, right = training.dataset.queries, scored.dataset.queries
        leaks = find_leaks([left.texts[row] for row in rows], [right.texts[row] for row in others])
        return [
            FoundLeak(
                leak.kind,
                training.name,
                left.ids[rows[leak.training]],
                int(rows[leak.training]),
                scored.name,
                right.ids[others[leak.scored]],
                int(others[leak.scored]),
                round(leak.similarity, 4),
            )
            for leak in leaks
        ]

    @staticmethod
    def _unseen_gold(split: Split) -> set[int]:
        """Scored queries none of whose positives is a positive of any training query, dropped ones counted in."""
        seen = np.union1d(split.shipped.train.positives.documents, split.shipped.dev.positives.documents)
        positives = split.scored.positives
        known = set(positives.queries[np.isin(positives.documents, seen)].tolist())
        return set(positives.queries.tolist()) - known

    def _example(self, leak: FoundLeak) -> LeakageExample:
        scored = self._datasets[leak.scored_name].dataset.queries.texts[leak.scored_row]
        training = self._datasets[leak.training_name].dataset.queries.texts[leak.training_row]
        return LeakageExample(scored, training, leak.similarity)
