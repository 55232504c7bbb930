"""What people use today, each as it comes and tuned by hand as far as its own options go."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from common import SETS, model_folder, rate, read_beir, training_pairs

TUNED_BATCH = 128


def _model(tuned: bool) -> Any:
    from sentence_transformers import SentenceTransformer

    options = {"model_kwargs": {"dtype": "bfloat16"}} if tuned else {}
    return SentenceTransformer(model_folder(), device="cpu", **options)


def mteb_benchmark(tuned: bool) -> dict[str, float]:
    """mteb with a custom task on the same files, its result cache off."""
    import mteb
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    def task(name: str) -> AbsTaskRetrieval:
        class Local(AbsTaskRetrieval):  # type: ignore[misc]
            metadata = TaskMetadata(
                name=f"Local{name}",
                dataset={"path": f"local/{name}", "revision": "1"},
                description=name,
                reference=None,
                type="Retrieval",
                category="t2t",
                modalities=["text"],
                eval_splits=["test"],
                eval_langs=["eng-Latn"],
                main_score="ndcg_at_10",
                date=None,
                domains=None,
                task_subtypes=None,
                license=None,
                annotations_creators=None,
                dialect=None,
                sample_creation=None,
                bibtex_citation=None,
            )

            def load_data(self, *_: Any, **__: Any) -> None:
                data = read_beir(name)
                documents = [{"id": key, **value} for key, value in data.corpus.items()]
                queries = [{"id": key, "text": text} for key, text in data.queries.items()]
                split = {
                    "corpus": Dataset.from_list(documents),
                    "queries": Dataset.from_list(queries),
                    "relevant_docs": data.qrels,
                    "top_ranked": None,
                }
                self.dataset = {"default": {"test": split}}
                self.data_loaded = True

        return Local()

    result = mteb.evaluate(
        _model(tuned),
        [task(name) for name in SETS],
        cache=None,
        encode_kwargs={"batch_size": TUNED_BATCH} if tuned else None,
        show_progress_bar=False,
        co2_tracker=False,
    )
    return {
        name: float(one.scores["test"][0]["ndcg_at_10"]) for name, one in zip(SETS, result.task_results, strict=True)
    }


def beir_benchmark(tuned: bool) -> dict[str, float]:
    """beir's exact search and its evaluation."""
    from beir.retrieval import models
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    options = {"model_kwargs": {"dtype": "bfloat16"}} if tuned else {}
    model = models.SentenceBERT(model_folder(), device="cpu", **options)
    batch = {"batch_size": TUNED_BATCH} if tuned else {}
    scores = {}
    for name in SETS:
        data = read_beir(name)
        retriever = EvaluateRetrieval(
            DenseRetrievalExactSearch(model, show_progress_bar=False, **batch), score_function="cos_sim"
        )
        results = retriever.retrieve(data.corpus, data.queries)
        scores[name] = retriever.evaluate(data.qrels, results, retriever.k_values)[0]["NDCG@10"]
    return scores


def evaluator_benchmark(tuned: bool) -> dict[str, float]:
    """sentence-transformers' InformationRetrievalEvaluator. Its nDCG is binary: graded judgments count as 1."""
    from sentence_transformers.evaluation import InformationRetrievalEvaluator

    model = _model(tuned)
    scores = {}
    for name in SETS:
        data = read_beir(name)
        documents = {key: f"{one['title']} {one['text']}".strip() for key, one in data.corpus.items()}
        relevant = {query: {key for key, score in judged.items() if score > 0} for query, judged in data.qrels.items()}
        batch = {"batch_size": TUNED_BATCH} if tuned else {}
        evaluator = InformationRetrievalEvaluator(data.queries, documents, relevant, name=name, **batch)
        scores[name] = float(evaluator(model)[f"{name}_cosine_ndcg@10"])
    return scores


def beir_search(queries: np.ndarray, documents: np.ndarray, qrels: dict[str, dict[str, int]]) -> dict[str, float]:
    """beir's exact search over given vectors, and its metrics; seconds of both."""
    import torch
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    class Given:
        """A model whose texts are row numbers; all of one length, so that beir's sort keeps their order."""

        def encode_queries(self, texts: list[str], **_: Any) -> Any:
            return torch.from_numpy(queries[[int(text) for text in texts]])

        def encode_corpus(self, rows: list[dict[str, str]], **_: Any) -> Any:
            return torch.from_numpy(documents[[int(row["text"]) for row in rows]])

    corpus = {f"d{row}": {"title": "", "text": f"{row:09d}"} for row in range(len(documents))}
    asked = {f"q{row}": f"{row:09d}" for row in range(len(queries))}
    retriever = EvaluateRetrieval(DenseRetrievalExactSearch(Given(), show_progress_bar=False), score_function="dot")
    start = time.perf_counter()
    results = retriever.retrieve(corpus, asked)
    searched = time.perf_counter()
    ndcg = retriever.evaluate(qrels, results, retriever.k_values)[0]["NDCG@10"]
    ended = time.perf_counter()
    return {
        "search and metrics": ended - start,
        "search": searched - start,
        "metrics": ended - searched,
        "ndcg_at_10": ndcg,
    }


def trainer(tuned: bool, steps: int, batch: int) -> dict[str, float]:
    """sentence-transformers' trainer with its MultipleNegativesRankingLoss; the first steps warm up."""
    import tempfile

    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    without_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    options = {"config_kwargs": without_dropout} if tuned else {}
    model = SentenceTransformer(model_folder(), device="cpu", **options)
    pairs = training_pairs(batch * steps)
    data = Dataset.from_dict({"anchor": [one for one, _ in pairs], "positive": [one for _, one in pairs]})
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch,
            max_steps=steps,
            learning_rate=2e-5,
            bf16=tuned,
            optim="adamw_torch_fused" if tuned else "adamw_torch",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        loss = MultipleNegativesRankingLoss(model)
        SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=loss, callbacks=[Clock()]).train()
    return {"pairs_per_second": rate(marks, batch)}
