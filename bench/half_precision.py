"""A base in half precision: our figures beside plain sentence-transformers', which computes it in half precision.

RANKSAGA_DATASETS=<folder of the collections> python bench/half_precision.py MODEL [DATASET]

The model is saved in fp32, bf16 and fp16. Each is scored twice on the test queries: by `ranksaga.benchmark_model` at
`precision: fp32`, and by `SentenceTransformer(folder).encode` with the same prompts, ranked by pytrec_eval's rules.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Beir, data_folder, read_beir


def peer_ndcg(folder: Path, data: Beir, prompts: tuple[str, str], max_length: int) -> dict[str, float]:
    """nDCG@10 of each query with plain sentence-transformers, in the dtype of the folder."""
    import pytrec_eval
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = min(max_length, model.max_seq_length)

    def encode(texts: list[str], prompt: str) -> np.ndarray[Any, Any]:
        vectors = model.encode(texts, prompt=prompt, normalize_embeddings=True, convert_to_tensor=True)
        return np.asarray(vectors.float().cpu().numpy())

    documents = [f"{row['title']} {row['text']}".strip() for row in data.corpus.values()]
    scores = encode(list(data.queries.values()), prompts[0]) @ encode(documents, prompts[1]).T
    ids = list(data.corpus)
    run = {
        query: {ids[row]: float(line[row]) for row in np.argsort(-line)[:100] if ids[row] != query}
        for query, line in zip(data.queries, scores, strict=True)
    }
    measured = pytrec_eval.RelevanceEvaluator(data.qrels, {"ndcg_cut_10"}).evaluate(run)
    return {query: values["ndcg_cut_10"] for query, values in measured.items()}


def main() -> None:
    """Print a row a dtype."""
    import torch
    from sentence_transformers import SentenceTransformer

    from ranksaga import benchmark_model, load_encoder
    from ranksaga.encode.models import locate

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="minilm, or a model's folder")
    parser.add_argument("dataset", nargs="?", default="cranfield")
    parser.add_argument("--max-length", type=int, default=160)
    arguments = parser.parse_args()
    data = read_beir(arguments.dataset)
    prompts = load_encoder(arguments.model, precision="fp32").spec.prompts
    print("| files | ours, fp32 arithmetic | sentence-transformers, the files' dtype | largest difference of a query |")
    print("|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            SentenceTransformer(locate(arguments.model), device="cpu").to(dtype).save(str(folder))
            (ours,) = benchmark_model(
                str(folder),
                [str(data_folder(arguments.dataset))],
                precision="fp32",
                max_length=arguments.max_length,
                query_prompt=prompts.query,
                document_prompt=prompts.document,
            )
            peer = peer_ndcg(folder, data, (prompts.query, prompts.document), arguments.max_length)
        mine = dict(zip(ours.query_ids, ours.values["ndcg_at_10"], strict=True))
        difference = max(abs(float(mine[query]) - value) for query, value in peer.items())
        mean = float(np.mean(list(peer.values())))
        print(
            f"| {str(dtype).removeprefix('torch.')} | {ours.mean('ndcg_at_10'):.4f} | {mean:.4f} | {difference:.3f} |"
        )


if __name__ == "__main__":
    main()
