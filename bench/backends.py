"""The quickstart on every back end: what it took, how far its scores are from one process's, and a kill in the middle.

    python bench/backends.py OUT [PLACE ...]

A place is what ``--on`` takes; ``modal`` is performed here, folders in the place of Modal's Volumes. ``PLACE!`` is
killed in the middle. Every place has caches of its own, so nothing is found that another one made. What was measured
is kept in OUT/backends.json, a line a run, and all of it is shown at the end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

STANDIN = Path(__file__).parents[1] / "tests" / "backends" / "standin.py"
PLACES = ["local", "torchrun:2", "ray:1", "ray:2", "ray:4", "modal"]
KILLED = ["local!", "torchrun:2!", "ray:2!", "modal!"]
TOLD = "stderr.txt"
STEPS = 10  # of training, before a process of it is killed


def command(place: str, folder: Path) -> list[str]:
    program = ["-m", "ranksaga"] if place != "modal" else [str(STANDIN), "ranksaga"]
    return [sys.executable, *program, "run", "--out", str(folder), "--on", place]


def start(place: str, folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    """What it says goes to a file."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"RANKSAGA_HOME": str(folder / "home"), "RANKSAGA_STANDIN": str(folder / "far"), **environment}
    with (folder / TOLD).open("wb") as told:
        return subprocess.Popen(
            command(place, folder), stdout=subprocess.DEVNULL, stderr=told, env={**os.environ, **settings}
        )


def told(folder: Path) -> str:
    """The last line of what a run said."""
    return ((folder / TOLD).read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]


def stages_of(place: str, folder: Path) -> Path:
    """Where the stages lie while the run goes on."""
    return folder / ("far/runs" if place == "modal" else "") / "quickstart" / "stages"


def wall(stage: Path) -> float:
    """Seconds from the beginning of a stage's first piece to the end of its last; pieces may be side by side."""
    begun = min(path.stat().st_mtime for path in stage.glob("*/inputs.json"))
    return max(path.stat().st_mtime for path in stage.glob("*/done.json")) - begun


def means(folder: Path) -> dict[str, float]:
    """Mean of every metric of every system on every dataset."""
    found = {}
    for file in sorted((folder / "quickstart" / "per_query").glob("*/*.json")):
        for metric, values in json.loads(file.read_text())["values"].items():
            found[f"{file.parent.name} {file.stem} {metric}"] = sum(values) / len(values)
    return found


def furthest(folder: Path, other: Path, metric: str) -> float:
    """The largest difference of two runs' means, over systems and datasets."""
    ours, theirs = means(folder), means(other)
    if ours.keys() != theirs.keys() or not ours:
        raise SystemExit(f"{folder} and {other} scored different things")
    return max(abs(value - theirs[name]) for name, value in ours.items() if name.endswith(metric))


def below(parent: int) -> Iterator[tuple[int, str, int]]:
    """Processes that a process started, and theirs: number, title, rank (-1: none)."""
    shown = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    for child in map(int, shown.stdout.split()):
        try:
            title = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            pairs = Path(f"/proc/{child}/environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        yield child, title, next((int(pair[5:]) for pair in pairs if pair.startswith("RANK=")), -1)
        yield from below(child)


def kill(run: subprocess.Popen[bytes], choice: Callable[[str, int], bool], ready: Callable[[], bool]) -> None:
    """Kill one of the run's processes as soon as it is time, and there is one."""
    while run.poll() is None:
        if ready():
            for process, title, rank in below(run.pid):
                if choice(title, rank):
                    os.kill(process, signal.SIGKILL)
                    return
        time.sleep(0.05)
    raise SystemExit("the run ended before it could be killed")


def killed(place: str, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The run that ends well after a kill, and what happened before."""
    stages = stages_of(place, folder)

    def trains() -> bool:
        return any(log.read_text().count("\n") >= STEPS for log in stages.glob("train/*/loss.jsonl"))

    if place.startswith("ray"):
        run = start(place, folder)
        kill(run, lambda title, _: "ray::Actor.vectors" in title, lambda: any(stages.glob("baseline/*/inputs.json")))
        kill(run, lambda title, _: "TrainWorker" in title, trains)
        return run, "an encoding actor, and a training worker; the run went on by itself"
    run = start(place, folder, **({"RANKSAGA_DIE_AT": "train:2"} if place == "modal" else {}))
    if place == "local":
        while not trains():
            time.sleep(0.05)
        run.kill()
    elif place.startswith("torchrun"):
        kill(run, lambda _, rank: rank == 1, trains)
    note = f"ended with {run.wait()}: {told(folder)}"
    return start(place, folder), note


def measure(place: str, out: Path) -> dict[str, object]:
    where = place.removesuffix("!")
    folder = out / place.replace(":", "-").replace("!", "-killed")
    if folder.exists():
        raise SystemExit(f"{folder} exists; delete it, or give another OUT")
    begun = time.perf_counter()
    run, note = killed(where, folder) if place.endswith("!") else (start(where, folder), "")
    if run.wait():
        raise SystemExit(f"{place} failed: {told(folder)}")
    seconds = time.perf_counter() - begun
    stages = stages_of(where, folder)
    return {
        "place": place,
        "seconds": round(seconds, 1),
        "baseline": round(wall(stages / "baseline"), 1),
        "train": round(wall(stages / "train"), 1),
        "load": round(os.getloadavg()[1], 1),
        "apart_ndcg": furthest(folder, out / "local", "ndcg_at_10"),
        "apart_any": furthest(folder, out / "local", ""),
        "note": note,
    }


def main() -> None:
    out, places = Path(sys.argv[1]).absolute(), sys.argv[2:] or PLACES + KILLED
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "backends.json"
    for place in places:
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(measure(place, out)) + "\n")
    print(kept.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
