"""What a user takes away: the shipped model with its card, and the files of a report in the run's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from ranksaga.encode.encoder import Encoder
from ranksaga.encode.saving import save_model, tower_models
from ranksaga.encode.towers import has_two_towers
from ranksaga.evaluate.per_query import PER_QUERY
from ranksaga.files import atomic_dir, atomic_open, files_below, remove
from ranksaga.retrieve.searcher import mean_blend, write_blends
from ranksaga.run.folder import MODEL
from ranksaga.run.plan import Plan
from ranksaga.run.stages.score import Scored, System, read_blends, read_evaluation
from ranksaga.untrusted.escape import markdown
from ranksaga.untrusted.yaml_input import dump_yaml

__all__ = ["publish", "write_shipped_model"]

REPORT = "report.html"  # comes last: when it is there, the rest is too
# What another recipe may have left in the run's folder: nobody could tell its files from those of this one.
PUBLISHED = (PER_QUERY, "rankings", "results", f"{MODEL}_query", f"{MODEL}_document", "selection_*.png")


def publish(source: Path, target: Path, *, leave: tuple[str, ...]) -> tuple[str, ...]:
    """Copy what the stage wrote (all but ``leave``) into the folder of the run, in place of what was there before.

    Returns:
        The files that were copied, by their paths in the folder.
    """
    for path in (path for pattern in PUBLISHED for path in target.glob(pattern)):
        if not (source / path.name).exists():
            remove(path)
    for path in sorted(source.iterdir(), key=lambda path: path.name == REPORT):
        if path.name in leave:
            continue
        if path.is_dir():
            with atomic_dir(target / path.name) as folder:
                shutil.copytree(path, folder, dirs_exist_ok=True)
        else:
            with atomic_open(target / path.name, "wb") as stream, path.open("rb") as content:
                shutil.copyfileobj(content, stream)
    return tuple(name for name, _ in files_below(source) if name.split("/")[0] not in leave)


def write_shipped_model(system: System, baseline: System, plan: Plan, title: str, folder: Path) -> None:
    """The model that ships: weights, prompts in its config, a card with what was measured.

    Args:
        system: whose encoder ships.
        baseline: measurements of the base model.
        plan: of the run.
        title: of the card.
        folder: receives ``model/`` and, of a model with two towers, ``model_query/`` and ``model_document/``.
    """
    encoder, base = system.encoder, baseline.encoder
    if encoder is None or base is None:
        return
    spec, model = encoder.spec, encoder.model
    prompts = {"query": spec.prompts.query, "document": spec.prompts.document}
    card = _card(system, baseline, plan, title, base.spec.model) + _usage(encoder)
    with atomic_dir(folder / MODEL) as target:
        save_model(model, target, prompts, spec.max_length)
        (target / "README.md").write_text(card, encoding="utf-8")
        # Of a cross-fitted dataset each fold chose a blend; a new query is best served by their mean.
        blends = {scored.member.name: mean_blend(read_blends(scored)) for scored in system.mixed}
        if blends:
            write_blends(target, blends)
    for task, tower in tower_models(model).items():
        with atomic_dir(folder / f"{MODEL}_{task}") as target:
            save_model(tower, target, prompts, spec.max_length)
            (target / "README.md").write_text(card, encoding="utf-8")


def _card(system: System, baseline: System, plan: Plan, title: str, base: str) -> str:
    """A model card. Where the base model was kept it has that model's figures: a fold may have chosen otherwise."""
    before = {one.member.dataset.name: _ndcg(one, plan) for one in baseline.scored}
    if system.encoder is baseline.encoder:
        origin = (
            f"This is {markdown(base)}, unchanged: RankSaga fine-tuned it, and no candidate qualified "
            "(the report says why)."
        )
        queries, head = "test queries", "| dataset | this model |\n|---|---|"
        rows = [f"| {markdown(dataset)} | {value:.4f} |" for dataset, value in before.items()]
    else:
        origin, queries = (
            f"Fine-tuned with RankSaga from {markdown(base)}.",
            "test queries that the scored model has not seen",
        )
        head = "| dataset | base | this model |\n|---|---|---|"
        after = {one.member.dataset.name: _ndcg(one, plan) for one in system.scored}
        rows = [f"| {markdown(dataset)} | {before[dataset]:.4f} | {value:.4f} |" for dataset, value in after.items()]
    table = "\n".join([head, *rows])
    head = dump_yaml(
        {
            "library_name": "sentence-transformers",
            "pipeline_tag": "sentence-similarity",
            "base_model": base,
            "tags": ["sentence-transformers", "ranksaga", "retrieval"],
        }
    )
    return f"---\n{head}---\n# {markdown(title)}\n\n{origin}\n\nnDCG@10 on {queries}:\n\n{table}\n"


def _ndcg(scored: Scored, plan: Plan) -> float:
    return read_evaluation(scored, plan).mean("ndcg_at_10")


def _usage(encoder: Encoder) -> str:
    """How the model is to be called, where there is a wrong way."""
    if not has_two_towers(encoder.model):
        return ""
    return (
        "\nThis model has weights of their own for queries and for documents (a `Router`). Call `encode_query(texts)` "
        'and `encode_document(texts)`. `encode(texts, prompt_name="query")` puts the prompt and nothing else: without '
        '`task="query"` the texts go to the default route, as a rule that of documents.\n\n'
        f"For tools that know `encode` alone, each tower is also a plain model beside this folder: `{MODEL}_query` and "
        f"`{MODEL}_document`.\n"
    )
