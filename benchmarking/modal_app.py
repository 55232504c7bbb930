"""Benchmarks on Modal.

modal run modal_app.py::run_benchmark --detach
modal run modal_app.py::run_optimized_benchmark --model-name ranksaga-optimized-e5-v2 --detach
"""

from __future__ import annotations

import sys

from steps import step

import config
from ranksaga.backends.modal_cloud import app


@app.local_entrypoint()
def run_benchmark(detach: bool = False, gpu: str = config.GPU, fresh: bool = False) -> None:
    """Score the base model on all datasets; ``--fresh`` forgets the whole run before."""
    step("baseline", gpu=gpu, detach=detach, fresh=fresh)


@app.local_entrypoint()
def run_optimized_benchmark(model_name: str = config.MODEL_NAME, detach: bool = False, gpu: str = config.GPU) -> None:
    """Score the trained models, each query by one that never saw it; compare, report, keep the shipped model."""
    if model_name != config.MODEL_NAME:
        print(
            f"ranksaga: --model-name {model_name}: the study makes {config.MODEL_NAME}; "
            "use that name, or change MODEL_NAME in config.py",
            file=sys.stderr,
        )
        sys.exit(2)
    step(None, gpu=gpu, detach=detach)
