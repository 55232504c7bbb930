"""The names of the stages: what the command line takes, and what the docs say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ranksaga.errors import UsageError
from ranksaga.run.stages import PIPELINE, check_stages, stages_from

DOCS = Path(__file__).parents[2] / "docs" / "pipeline.md"


def test_the_docs_list_the_pipeline() -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    first = lines.index("| stage | what it does |") + 2
    listed = lines[first : first + len(PIPELINE) + 1]
    assert listed == [*(f"| `{stage.name}` | {stage.description} |" for stage in PIPELINE), ""]


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        ("pairs", None, "--from pairs: this stage is now called splits; write --from splits"),
        (None, "optimized", "--to optimized: this stage is now called score; write --to score"),
        ("trian", None, "--from trian: there is no such stage; did you mean 'train'?"),
        ("train", "data", "--from train --to data: data comes before train; swap them"),
    ],
)
def test_a_name_that_is_none_is_refused_in_one_line(start: str | None, stop: str | None, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_stages(start, stop)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_from_a_stage_on_and_from_none() -> None:
    check_stages("score", "report")
    assert stages_from("score") == ("score", "compare", "report")
    assert stages_from(None) == ()
