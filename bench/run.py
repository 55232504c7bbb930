"""Us and the peers side by side: one process a measurement, alternating, medians and ratios.

    make bench                                   every case
    python bench/run.py benchmark search         some of them
    python bench/run.py --repeats 1 --quick all  a dry run at small size

Peers come as they come and tuned by hand as far as their own options go (bf16 weights, batch 128; for training bf16
autocast, no dropout, fused AdamW). Results go to ``bench/results.json`` case by case, and from there to
``bench/RESULTS.md``; a system that is run again on the same kind of machine replaces its row.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ours
import peers

HERE = Path(__file__).parent
RESULTS, TABLE = HERE / "results.json", HERE / "RESULTS.md"
OURS = "ranksaga"


@dataclass(frozen=True)
class System:
    """One way to do a case's work: ``work`` runs in a process of its own; ``once`` where it takes many minutes."""

    name: str
    work: Callable[[bool], dict[str, Any]]
    once: bool = False
    warm: bool = False


@dataclass(frozen=True)
class Case:
    """What is compared. ``figure``: the measured key that counts, else the whole process's wall time in seconds."""

    title: str
    systems: tuple[System, ...]
    figure: str = "seconds"
    more_is_better: bool = False


CASES: dict[str, Case] = {
    "benchmark": Case(
        "Benchmark of SciFact and NFCorpus, cold, whole process",
        (
            System(OURS, lambda quick: ours.benchmark()),
            System("mteb, tuned", lambda quick: peers.mteb_benchmark(True)),
            System("mteb, as it comes", lambda quick: peers.mteb_benchmark(False)),
            System("beir, tuned", lambda quick: peers.beir_benchmark(True), once=True),
            System("beir, as it comes", lambda quick: peers.beir_benchmark(False), once=True),
            System("InformationRetrievalEvaluator, tuned", lambda quick: peers.evaluator_benchmark(True), once=True),
            System(
                "InformationRetrievalEvaluator, as it comes", lambda quick: peers.evaluator_benchmark(False), once=True
            ),
        ),
    ),
    "warm": Case(
        "The same, warm: nothing changed since the last time",
        (System(OURS, lambda quick: ours.benchmark(), warm=True),),
    ),
    "search": Case(
        "Search and metrics: 10,000 queries, 523,000 documents, 384 dimensions, top 1000 (random unit vectors)",
        (
            System(OURS, lambda quick: ours.search(*ours.random_collection(quick))),
            System("beir", lambda quick: peers.beir_search(*ours.random_collection(quick))),
        ),
        figure="search and metrics",
    ),
    "training": Case(
        "Training on SciFact and NFCorpus, batches of 32 pairs, 256 tokens",
        (
            System(OURS, lambda quick: ours.trainer(4 if quick else 24, 32)),
            System("sentence-transformers, tuned", lambda quick: peers.trainer(True, 2 if quick else 12, 32)),
            System("sentence-transformers, as it comes", lambda quick: peers.trainer(False, 2 if quick else 6, 32)),
        ),
        figure="pairs_per_second",
        more_is_better=True,
    ),
    "shares": Case(
        "Share of the machine's measured bf16 matrix-product peak",
        (
            System("encoding", lambda quick: ours.encoding_share()),
            System("training", lambda quick: ours.training_share(4 if quick else 24, 32)),
        ),
        figure="share",
        more_is_better=True,
    ),
    "growth": Case(
        "Growth: short documents, encoded, searched with 100 queries and scored",
        tuple(
            System(f"{count:,} documents", lambda quick, count=count: ours.growth(count), once=True)  # type: ignore[misc]
            for count in (5_000, 50_000, 150_000, 500_000)
        ),
        figure="milliseconds_per_document",
    ),
}


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=[], help=f"{', '.join(CASES)}; none: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="systems of the cases; repeat for more")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs; writes nothing")
    parser.add_argument("--worker", nargs=2, metavar=("CASE", "SYSTEM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        case, system = options.worker
        work = next(one.work for one in CASES[case].systems if one.name == system)
        print("\n" + json.dumps(work(options.quick)))
        return
    for name in options.cases or CASES:
        case = CASES[name]
        if options.only:
            case = replace(case, systems=tuple(one for one in case.systems if one.name in options.only))
        rows = measure(name, case, options.repeats, options.quick)
        if not options.quick:
            write(name, rows)
    if not options.quick:
        print(f"table: {TABLE}")


def measure(name: str, case: Case, repeats: int, quick: bool) -> dict[str, Any]:
    """All systems of a case, in turn, as often as asked."""
    runs: dict[str, list[dict[str, Any]]] = {system.name: [] for system in case.systems}
    with tempfile.TemporaryDirectory() as homes:
        for repeat in range(repeats):
            for system in case.systems:
                if system.once and repeat:
                    continue
                home = Path(homes) / ("warm" if system.warm else f"{system.name}-{repeat}".replace(" ", "-"))
                if system.warm and not repeat:
                    run(name, system.name, home, quick)
                runs[system.name].append(run(name, system.name, home, quick))
                shown = {key: round(value, 4) for key, value in runs[system.name][-1].items() if key != "values"}
                print(f"{name} {repeat + 1}/{repeats} {system.name}: {shown}", flush=True)
    return {"title": case.title, "figure": case.figure, "more_is_better": case.more_is_better, "runs": runs}


def run(case: str, system: str, home: Path, quick: bool) -> dict[str, Any]:
    """One measurement in a process of its own: what it says, its wall time in seconds, its peak memory in GiB."""
    command = [sys.executable, str(Path(__file__)), "--worker", case, system, *(["--quick"] if quick else [])]
    environment = {**os.environ, "RANKSAGA_HOME": str(home), "TOKENIZERS_PARALLELISM": "true"}
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{case}, {system}: ended with {process.returncode}:\n{errors.read().decode()[-3000:]}")
        output.seek(0)
        found: dict[str, Any] = json.loads(output.read().decode().strip().splitlines()[-1])
    return {"seconds": seconds, "peak_gib": usage.ru_maxrss / 2**20, **found}


def write(name: str, rows: dict[str, Any]) -> None:
    """Replace a case's systems of this machine in the JSON and draw the tables anew."""
    stored = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    cases = stored.setdefault(machine(), {})
    rows["runs"] = {**cases.get(name, {}).get("runs", {}), **rows["runs"]}
    cases[name] = {**rows, "date": date.today().isoformat(), "versions": versions()}
    ordered = {one: {key: cases[key] for key in CASES if key in cases} for one, cases in stored.items()}
    RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
    TABLE.write_text(table(ordered))


def machine() -> str:
    """What is measured on. AMX, which multiplies matrices in bf16, makes another machine of a processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    told = {
        name.strip(): value.strip() for name, separator, value in (line.partition(":") for line in lines) if separator
    }
    amx = "with" if "amx_bf16" in told.get("flags", "").split() else "without"
    return f"{os.cpu_count()} cores of {told.get('model name', platform.processor())}, {amx} AMX"


def versions() -> dict[str, str]:
    """What was measured with."""
    return {name: version(name) for name in ("torch", "transformers", "sentence-transformers", "mteb", "beir")}


def table(stored: dict[str, Any]) -> str:
    """All cases of all machines as Markdown: medians, their range, and the ratio to ours."""
    lines = ["# Measured side by side", "", "`make bench` writes this file and `results.json`.", ""]
    for place, cases in stored.items():
        lines += [f"# {place}", ""]
        for case in cases.values():
            lines += section(case, cases)
    return "\n".join(lines) + "\n"


def section(case: dict[str, Any], stored: dict[str, Any]) -> Iterable[str]:
    """One case."""
    figure = case["figure"]
    names = [key for key in _keys(case) if key not in ("seconds", "peak_gib", figure)]
    yield f"## {case['title']}"
    yield ""
    yield f"{case['date']}, {', '.join(f'{key} {value}' for key, value in case['versions'].items())}"
    yield ""
    head = [figure.replace("_", " "), "runs (lowest - highest)", "against ours", "peak memory, GiB", *names]
    yield "| system | " + " | ".join(head) + " |"
    yield "|---|" + "---:|" * len(head)
    reference = case["runs"].get(OURS)
    for system, runs in case["runs"].items():
        values = [one[figure] for one in runs]
        middle = statistics.median(values)
        ratio = ""
        if reference is not None and system != OURS:
            ours_middle = statistics.median(one[figure] for one in reference)
            ratio = f"{ours_middle / middle if case['more_is_better'] else middle / ours_middle:.2f}x"
        memory = f"{max(one['peak_gib'] for one in runs):.2f}"
        rest = [_shown(statistics.median(one[key] for one in runs)) if key in runs[0] else "" for key in names]
        span = f"{len(runs)} ({_shown(min(values))} - {_shown(max(values))})"
        yield f"| {system} | " + " | ".join([_shown(middle), span, ratio, memory, *rest]) + " |"
    as_it_comes = stored.get("benchmark", {}).get("runs", {}).get("mteb, as it comes")
    if case["title"] == CASES["warm"].title and as_it_comes:
        slow = statistics.median(one["seconds"] for one in as_it_comes)
        fast = statistics.median(one["seconds"] for one in case["runs"][OURS])
        yield ""
        yield f"mteb as it comes takes {slow / fast:.0f} times as long."
    yield ""


def _keys(case: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(key for runs in case["runs"].values() for one in runs for key in one))


def _shown(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.3e}"


if __name__ == "__main__":
    main()
