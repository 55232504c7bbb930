"""The study's settings, once. Model, datasets and training are in the recipe; change them there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ranksaga.config.load import load_recipe
from ranksaga.errors import RankSagaError

HERE = Path(__file__).resolve().parent
# RANKSAGA_STUDY names another recipe, to try the whole workflow on something small.
RECIPE = Path(os.environ.get("RANKSAGA_STUDY", HERE.parent / "studies" / "first-study.yaml"))
try:
    STUDY = load_recipe(RECIPE)
except RankSagaError as error:
    print(f"ranksaga: {error}", file=sys.stderr)
    sys.exit(error.exit_code)

MODEL = STUDY.model  # intfloat/e5-base-v2
DATASETS = STUDY.datasets  # scifact, nfcorpus, scidocs, quora
MODEL_NAME = "ranksaga-optimized-e5-v2"  # the shipped model's name in the Volume ranksaga-models
GPU = "A10G"
RUN = Path(os.environ.get("RANKSAGA_RUNS", HERE.parent / "runs")) / STUDY.name  # what is fetched from Modal
RESULTS = Path(os.environ.get("RANKSAGA_RESULTS", HERE / "results")) / STUDY.name  # tables and charts without texts
