"""Where the time of a run went, on disk and for people."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ranksaga.config.recipe import Recipe
from ranksaga.encode.precision import choose_precision, matmul_rate
from ranksaga.files import write_json
from ranksaga.profile import Profile

__all__ = ["write_profile"]


def write_profile(profile: Profile, recipe: Recipe, folder: Path) -> str:
    """Write ``profile.json`` into a run's folder; the table for people.

    Rates are set against what this machine's matrix products reach in the precision of the run, measured now.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = choose_precision(recipe.precision, device)
    peak = matmul_rate(device, precision)
    content = {
        "device": device,
        "precision": precision,
        "peak_flops": peak,
        "parts": [asdict(one) for one in profile.spent],
    }
    write_json(folder / "profile.json", content)
    return f"{profile.table(peak)}\npeak: {peak / 1e9:.0f} GFLOP/s, matrix products in {precision} on {device}"
