"""What the study's commands share: one step of its run on Modal, its errors as one line."""

from __future__ import annotations

import sys

import config
from ranksaga.backends.modal_cloud import detached_in_front, parse_gpu, run_on_modal
from ranksaga.errors import RankSagaError


def step(stop: str | None, *, gpu: str, detach: bool, fresh: bool = False) -> None:
    """Run the study's recipe up to a stage, or to its end. What is done already is not done again."""
    try:
        outcome = run_on_modal(
            config.STUDY,
            config.RUN,
            gpu=parse_gpu(gpu),
            detach=detach or detached_in_front(),
            stop=stop,
            fresh=fresh,
            model=config.MODEL_NAME,
        )
    except RankSagaError as error:
        print(f"ranksaga: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(outcome.text())
