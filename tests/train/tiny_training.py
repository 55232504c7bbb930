"""A tiny random BERT and a small training run; also a program, so that a test can kill it.

python tiny_training.py MODEL_FOLDER RUN_FOLDER SECONDS_PER_STEP [RANK RANKS]

With a rank, so many processes train together; their batches are cut into several passes, and the others than rank 0
leave their last weights beside the run's folder.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ranksaga.config.training import Labelled
from ranksaga.encode.weight_files import save_weights
from ranksaga.train.pairs import TrainingPairs
from ranksaga.train.trainer import TrainingResult, train

PASS_TOKENS = 60
WORDS = [f"word{number}" for number in range(60)]


def build_tiny_bert(folder: Path) -> Path:
    """Two layers of 32 dimensions with random weights, saved as a sentence-transformers folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    bert, vocabulary = folder / "bert", folder / "vocab.txt"
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary.parent.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text("\n".join([*specials, *WORDS, "query", ":"]) + "\n", encoding="utf-8")
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(specials) + len(WORDS) + 2,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(bert)
    BertTokenizer(vocab=str(vocabulary), model_max_length=64).save_pretrained(bert)
    transformer = Transformer(str(bert))
    model = SentenceTransformer(modules=[transformer, Pooling(32), Normalize()], device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"


def word_pairs(name: str = "words", count: int = 40, seed: int = 0) -> TrainingPairs:
    """Pairs that share two words, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    queries, documents = [], []
    for _ in range(count):
        shared = rng.choice(WORDS, 2, replace=False).tolist()
        noise = rng.choice(WORDS, int(rng.integers(3, 12))).tolist()
        queries.append(" ".join(shared))
        documents.append(" ".join([*noise, *shared]))
    rows = np.arange(count, dtype=np.int32)
    pairs = np.stack([rows, rows], axis=1)
    return TrainingPairs(name, tuple(queries), tuple(documents), pairs, pairs)


def settings(**changes: Any) -> Labelled:
    """Five steps an epoch over ``word_pairs``, with dropout, so that its random draws are tested too."""
    return Labelled(**{"epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "dropout": True, **changes})


def run_small(model_folder: Path, folder: Path, pause: float = 0.0, checkpoint_seconds: float = 0.0) -> TrainingResult:
    """The run that is killed and resumed: 15 steps, a checkpoint after each."""
    return fit_small(load(model_folder), folder, pause, checkpoint_seconds)


def load(model_folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(model_folder), device="cpu")


def fit_small(model: Any, folder: Path, pause: float = 0.0, checkpoint_seconds: float = 0.0) -> TrainingResult:
    def wait(**_: Any) -> None:
        time.sleep(pause)

    return train(
        model,
        [word_pairs()],
        settings(),
        query_prompt="query: ",
        document_prompt="",
        max_length=32,
        precision="fp32",
        seed=7,
        folder=folder,
        progress=wait,
        checkpoint_seconds=checkpoint_seconds,
    )


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    target = Path(sys.argv[2])
    if len(sys.argv) < 5:
        run_small(Path(sys.argv[1]), target, float(sys.argv[3]))
    else:
        from ranksaga.train import embed

        rank, ranks = int(sys.argv[4]), int(sys.argv[5])
        embed.TOKEN_BUDGET["cpu"] = PASS_TOKENS
        meeting = target.with_name(f"{target.name}.meeting")
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks)
        if rank:  # as on another machine: nothing of rank 0's files is there
            target = target.with_name(f"{target.name}.rank-{rank}")
        model = load(Path(sys.argv[1]))
        fit_small(model, target, float(sys.argv[3]))
        if rank:
            save_weights(target.with_suffix(".safetensors"), model.state_dict())
        torch.distributed.destroy_process_group()  # left to the interpreter's end, its threads abort now and then
