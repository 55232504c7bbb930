"""Checks and measures RankSaga on a GPU: the CPU's figures first, then speed beside sentence-transformers' own.

Called by ``gpu.sh``, which says how. Texts are Python's standard library, as the quickstart reads it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

DATASET = "python:stdlib?limit={}"


@dataclass
class Report:
    """What was found, printed as it comes."""

    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    speeds: dict[str, float] = field(default_factory=dict)

    def check(self, name: str, value: float, limit: float) -> None:
        """``value`` is a difference that may be ``limit`` at most."""
        holds = bool(value <= limit)
        self.checks[name] = {"value": float(value), "limit": limit, "holds": holds}
        print(f"{'ok  ' if holds else 'FAIL'}  {name}: {value:.3g} (at most {limit:g})", flush=True)

    def speed(self, name: str, per_second: float) -> None:
        """Texts or pairs a second."""
        self.speeds[name] = per_second
        print(f"      {name}: {per_second:,.0f} a second", flush=True)


@dataclass(frozen=True)
class Setting:
    """What all parts share: where to compute, with which model, on how many texts."""

    model: str
    device: str
    half: str
    documents: int
    steps: int

    def encoder(self, precision: str, device: str) -> Any:
        """No cache: everything is computed."""
        from ranksaga.encode.encoder import load_encoder

        return load_encoder(self.model, precision=precision, max_length=256, device=device)


def check_vectors(setting: Setting, report: Report, texts: list[str]) -> np.ndarray[Any, Any]:
    """Vectors of the device beside those of the CPU in float32; the latter."""
    expected: np.ndarray[Any, Any] = setting.encoder("fp32", "cpu").encode_documents(texts)
    for precision, limit in {setting.half: 2e-2, "fp32": 1e-4}.items():
        vectors = setting.encoder(precision, setting.device).encode_documents(texts)
        report.check(f"vectors in {precision}: largest 1 - cosine", 1 - float((vectors * expected).sum(1).min()), limit)
    return expected


def check_search(setting: Setting, report: Report, vectors: np.ndarray[Any, Any]) -> None:
    """Rankings of the device beside those of the CPU."""
    from ranksaga.retrieve.search import search

    queries, rows = vectors[:64], np.arange(64, dtype=np.int32)
    ties = np.arange(len(vectors), dtype=np.int32)
    there, here = (
        search(queries, [(0, vectors)], query_rows=rows, ties=ties, depth=50, device=device)
        for device in (setting.device, "cpu")
    )
    report.check("search: largest difference of scores", float(np.abs(there.scores - here.scores).max()), 1e-5)
    same = (there.documents == here.documents).mean()
    report.check("search: share of places with another document", 1 - float(same), 0.01)


def pairs_of(dataset: Any) -> Any:
    """The labelled pairs of a dataset's test queries: only speed and losses are asked for here."""
    from ranksaga.train.pairs import labelled_pairs

    return labelled_pairs(dataset, dataset.split("test"), titles=True)


def fit(setting: Setting, dataset: Any, device: str, precision: str, steps: int, folder: Path) -> tuple[Any, Any]:
    """A plain contrastive training; the encoder and the result."""
    from ranksaga.config.training import Labelled
    from ranksaga.train.trainer import train

    encoder = setting.encoder("fp32", device)
    options = Labelled(epochs=1000, max_steps=steps, batch_size=32, learning_rate=2e-5, warmup_steps=0)
    prompts = encoder.spec.prompts
    result = train(
        encoder.model,
        [pairs_of(dataset)],
        options,
        query_prompt=prompts.query,
        document_prompt=prompts.document,
        max_length=256,
        precision=precision,
        seed=0,
        folder=folder,
    )
    return encoder, result


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "loss.jsonl").read_text(encoding="utf-8").splitlines()]


def check_training(setting: Setting, report: Report, dataset: Any, folder: Path) -> None:
    """Losses of the first steps; then the mix of base and trained weights, on the device and on the CPU."""
    from ranksaga.encode.models import revision_of
    from ranksaga.encode.weight_files import load_weights
    from ranksaga.train.model_merging import interpolate

    steps = 5
    _, plain = fit(setting, dataset, "cpu", "fp32", steps, folder / "cpu")
    expected = losses(folder / "cpu")
    for precision in dict.fromkeys(("fp32", setting.half)):
        fit(setting, dataset, setting.device, precision, steps, folder / precision)
        apart = max(abs(a - b) for a, b in zip(losses(folder / precision), expected, strict=True))
        report.check(
            f"training in {precision}: largest difference of losses", apart, 1e-3 if precision == "fp32" else 0.1
        )
    base, tuned = setting.encoder("fp32", setting.device).model, load_weights(plain.epochs[-1])
    mixed = interpolate(base.state_dict(), tuned, 0.5)
    here = interpolate({name: one.cpu() for name, one in base.state_dict().items()}, tuned, 0.5)
    apart = max(float((mixed[name].cpu().float() - one.float()).abs().max()) for name, one in here.items())
    report.check("merge: largest difference of weights", apart, 1e-6)
    base.load_state_dict(here)
    revisions = {revision_of(base), revision_of(base.to("cpu"))}
    report.check("merge: revisions of the same weights beyond one", len(revisions) - 1, 0)


def check_run(setting: Setting, report: Report, folder: Path) -> None:
    """The recipe ``best``, small, from benchmark to a published model that sentence-transformers loads."""
    from sentence_transformers import SentenceTransformer

    from ranksaga.config.recipe import Recipe
    from ranksaga.run.console import Silent
    from ranksaga.run.pipeline import run_recipe

    best = {
        "epochs": 1,
        "max_steps": 8,
        "seeds": 1,
        "merge_weights": [0.5, 1.0],
        "documents": {"weights": [0.0, 0.5]},
        "distillation": {"pseudo_queries": 64, "queries": 8, "labelled": 8, "documents": 8},
    }
    recipe = Recipe.model_validate(
        {
            "name": "gpu",
            "model": setting.model,
            "datasets": ["python:stdlib?limit=100"],
            "max_length": 32,
            "folds": 2,
            "systems": {"best": best},
        }
    )
    began = time.perf_counter()
    outcome = run_recipe(recipe, folder / "run", Silent())
    print(outcome.table)
    vector = SentenceTransformer(str(outcome.folder / "model"), device=setting.device).encode_query("parse a date")
    report.check("the whole run: not finite numbers of a vector", int((~np.isfinite(vector)).sum()), 0)
    report.speeds["seconds of the whole run"] = time.perf_counter() - began


def measure_encoding(setting: Setting, report: Report, texts: list[str]) -> None:
    """Documents a second, the first batch apart, which makes ready what all need."""
    import torch
    from sentence_transformers import SentenceTransformer

    from ranksaga.encode.models import locate

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for precision in dict.fromkeys(("fp32", setting.half)):
        encoder = setting.encoder(precision, setting.device)
        report.speed(f"encode, ranksaga, {precision}", rate(encoder.encode_documents, texts))
        peer = SentenceTransformer(
            locate(setting.model), device=setting.device, model_kwargs={"torch_dtype": kinds[precision]}
        )
        peer.max_seq_length = 256
        report.speed(
            f"encode, sentence-transformers, {precision}",
            rate(lambda some, peer=peer: peer.encode(some, batch_size=128), texts),  # type: ignore[misc]
        )


def rate(work: Callable[[list[str]], Any], texts: list[str]) -> float:
    work(texts[:64])
    began = time.perf_counter()
    work(texts)
    return len(texts) / (time.perf_counter() - began)


def measure_training(setting: Setting, report: Report, dataset: Any, folder: Path) -> None:
    """Pairs a second, of all steps but the first ones."""
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    from ranksaga.encode.models import locate

    half = setting.half
    fit(setting, dataset, setting.device, half, setting.steps, folder / "speed")
    log = [json.loads(line) for line in (folder / "speed" / "loss.jsonl").read_text(encoding="utf-8").splitlines()]
    report.speed(f"train, ranksaga, {half}", 32 * (len(log) - 2) / max(log[-1]["seconds"] - log[1]["seconds"], 1e-9))

    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if setting.device != "cpu":
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

    pairs = pairs_of(dataset)
    rows = [(pairs.queries[query], pairs.documents[document]) for query, document in pairs.pairs]
    data = Dataset.from_dict({"anchor": [query for query, _ in rows], "positive": [document for _, document in rows]})
    # As RankSaga trains: weights in float32, however the folder stores them.
    peer = SentenceTransformer(
        locate(setting.model), device=setting.device, model_kwargs={"torch_dtype": torch.float32}
    )
    peer.max_seq_length = 256
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "peer"),
        per_device_train_batch_size=32,
        max_steps=setting.steps,
        learning_rate=2e-5,
        bf16=half == "bf16",
        fp16=half == "fp16",
        use_cpu=setting.device == "cpu",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    loss = MultipleNegativesRankingLoss(peer)
    SentenceTransformerTrainer(peer, arguments, train_dataset=data, loss=loss, callbacks=[Clock()]).train()
    report.speed(f"train, sentence-transformers, {half}", 32 * (len(marks) - 2) / (marks[-1] - marks[1]))


def main() -> int:
    """0 where every check holds, else 1."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="few texts and steps: does the script work?")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    given = parser.parse_args()
    from ranksaga.data.resolve import load_dataset
    from ranksaga.encode.precision import choose_precision

    half = choose_precision("auto", given.device)
    sizes = (80, 4) if given.small else (4000, 60)
    setting = Setting(given.model, given.device, half, *sizes)
    name = torch.cuda.get_device_name(given.device) if given.device != "cpu" else "cpu"
    print(f"{name}, torch {torch.__version__}, {setting}")
    report, began = Report(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ranksaga-gpu-") as temporary:
        folder = Path(temporary)
        os.environ["RANKSAGA_HOME"] = str(folder / "home")
        dataset = load_dataset(DATASET.format(setting.documents))
        texts = list(dataset.corpus.documents)
        vectors = check_vectors(setting, report, texts[:400])
        check_search(setting, report, np.tile(vectors, (1 if given.small else 200, 1)))
        check_training(setting, report, dataset, folder)
        check_run(setting, report, folder)
        measure_encoding(setting, report, texts)
        measure_training(setting, report, dataset, folder)
    seconds = time.perf_counter() - began
    found = {"device": name, "torch": torch.__version__, "model": given.model, "seconds": seconds}
    given.out.write_text(json.dumps({**found, "checks": report.checks, "a second": report.speeds}, indent=1) + "\n")
    failed = [name for name, one in report.checks.items() if not one["holds"]]
    print(f"{len(report.checks) - len(failed)} of {len(report.checks)} checks hold, {seconds:.0f} s; {given.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
