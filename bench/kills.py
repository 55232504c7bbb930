"""Kill a run at random moments and damage what it left: is every result that of a run which nothing happened to?

``python bench/kills.py kills 200`` kills a tiny run (random model, one dataset, three epochs) so many times, by
SIGKILL, SIGTERM, Ctrl-C and power cuts, and resumes it. A power cut is a SIGKILL after which whatever was not flushed
to the device is cut or filled with zeros. ``flips 200`` changes one byte of a file that a finished run left, cuts or
loses the file or writes zeros over a page of it, and runs again. The same seed draws the same again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT, "power cut": signal.SIGKILL}
MOST_KILLS = 4  # of one run before it may end
# What is bit for bit the same in every run; the others (logs, reports, run.json) tell times.
RESULTS = (
    *("model/**/*", "rankings/*", "per_query/**/*", "comparison_table.csv"),
    *("stages/*/*/*.np[yz]", "stages/*/*/*.safetensors", "stages/*/*/c*.json", "stages/*/*/blends.json"),
)
# Nobody reads these to go on.
NOT_READ = ("log.txt", "inputs.json", ".ranksaga.json", ".ranksaga.lock", ".lock")


@dataclass(frozen=True)
class Job:
    """A recipe and the folders of its run: ``home`` is the cache."""

    recipe: Any
    run: Path
    home: Path

    def results(self) -> dict[str, str]:
        """Hash of each result by its path."""
        paths = {path for pattern in RESULTS for path in self.run.glob(pattern) if path.is_file()}
        return {str(path.relative_to(self.run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def prepare(root: Path) -> Job:
    """Make model, dataset and recipe in a folder."""
    import numpy as np

    from ranksaga.config.recipe import Recipe
    from ranksaga.data.beir import write_beir
    from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries

    model = runpy.run_path(str(TESTS / "train" / "tiny_training.py"))["build_tiny_bert"](root / "tiny")
    rng = np.random.default_rng(0)
    texts = tuple(" ".join(f"word{word}" for word in rng.choice(60, 8, replace=False)) for _ in range(48))
    ids = tuple(str(row) for row in range(48))
    splits = {"train": range(24), "dev": range(24, 36), "test": range(36, 48)}
    asked = Queries(tuple(f"q{one}" for one in ids), tuple(" ".join(text.split()[:4]) for text in texts))
    qrels = {split: Qrels.of([(row, row, 1) for row in rows]) for split, rows in splits.items()}
    write_beir(Dataset("small", Corpus(ids, ("",) * 48, texts), asked, qrels), root / "small")
    training = {"epochs": 3, "batch_size": 8, "warmup_steps": 1, "merge_weights": [0.5, 1.0]}
    recipe = Recipe.model_validate(
        {
            "name": "small",
            "model": str(model),
            "datasets": [str(root / "small")],
            "systems": {"small": {"method": "labelled", **training}},
            "precision": "fp32",
        }
    )
    return Job(recipe, root / "run", root / "home")


def start(job: Job, journal: Path | None = None) -> int:
    """Run in a process of its own, which is forked so that nothing is imported twice; its id."""
    child = os.fork()
    if child:
        return child
    code = 3
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log = os.open(job.run.with_suffix(".log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.environ["RANKSAGA_HOME"] = str(job.home)
        if journal is not None:
            keep_journal(journal)
        from ranksaga.run.console import Silent
        from ranksaga.run.pipeline import run_recipe

        run_recipe(job.recipe, job.run, Silent())
        code = 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a process; its exit code, below 0 that of a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def keep_journal(path: Path) -> None:
    """Note in a file what this process flushes to the device, with its size then, and what it renames."""
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    fsync, replace = os.fsync, os.replace

    def noted_fsync(file: Any) -> None:
        fsync(file)
        number = file if isinstance(file, int) else file.fileno()
        size = os.fstat(number).st_size
        os.write(handle, f"fsync\t{os.readlink(f'/proc/self/fd/{number}')}\t{size}\n".encode())

    def noted_replace(source: Any, target: Any, **options: Any) -> None:
        os.write(handle, f"replace\t{os.path.abspath(source)}\t{os.path.abspath(target)}\n".encode())
        replace(source, target, **options)

    os.fsync, os.replace = noted_fsync, noted_replace  # type: ignore[assignment]


def flushed(journal: Path) -> dict[str, int]:
    """Size on the device of each file that was flushed, by its name now."""
    sizes: dict[str, int] = {}
    for line in journal.read_text().splitlines() if journal.is_file() else ():
        what, first, second = line.split("\t")
        if what == "fsync":
            sizes[first] = int(second)
            continue
        moved = [name for name in sizes if name == first or name.startswith(f"{first}/")]
        for name in [name for name in sizes if name == second or name.startswith(f"{second}/")]:
            del sizes[name]
        sizes.update({second + name[len(first) :]: sizes.pop(name) for name in moved})
    return sizes


def cut_power(job: Job, journal: Path, rng: random.Random) -> int:
    """Damage what was not flushed; the number of files."""
    sizes, damaged = flushed(journal), 0
    for path in (path for root in (job.run, job.home) for path in root.rglob("*") if path.is_file()):
        safe = sizes.get(str(path), 0)
        size = path.stat().st_size
        if size <= safe or path.name.endswith("lock") or path.name == ".ranksaga.json":
            continue
        damaged += 1
        cut = rng.randint(safe, size)
        os.truncate(path, cut)
        if rng.random() < 0.5:  # the length was on the device, the content was not
            os.truncate(path, size)
    return damaged


def resume(job: Job, expected: dict[str, str]) -> None:
    """Run to the end.

    Raises:
        AssertionError: it fails, or a result is another one.
    """
    code = ended(start(job))
    log = job.run.with_suffix(".log")
    assert code == 0, f"exit code {code}: {log.read_text()[-3000:]}"
    compare(job.results(), expected)


def compare(found: dict[str, str], expected: dict[str, str]) -> None:
    """Refuse results that are not those of the run to which nothing happened."""
    names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    assert not names, f"other results: {', '.join(names[:5])}"


def kills(job: Job, count: int, rng: random.Random) -> Iterator[str]:
    """Kill so many times; a line for each run that was brought to its end."""
    began = time.perf_counter()
    assert ended(start(job)) == 0, job.run.with_suffix(".log").read_text()
    seconds, expected = time.perf_counter() - began, job.results()
    yield f"uninterrupted: {seconds:.1f} s, {len(expected)} results"
    done, how = 0, Counter[str]()
    journal = job.run.with_suffix(".journal")
    while done < count:
        for path in (job.run, job.home):
            shutil.rmtree(path, ignore_errors=True)
        for _ in range(min(rng.randint(1, MOST_KILLS), count - done)):
            name = rng.choice(list(SIGNALS))
            journal.unlink(missing_ok=True)
            child = start(job, journal)
            time.sleep(rng.uniform(0, 1.1 * seconds))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, SIGNALS[name])
            code = ended(child)
            assert code in (0, 130, -SIGNALS[name]), job.run.with_suffix(".log").read_text()[-3000:]
            if code == 0:
                continue  # it had come to its end
            if name == "power cut":
                cut_power(job, journal, rng)
            done += 1
            how[name] += 1
        resume(job, expected)
        shown = ", ".join(f"{number} {name}" for name, number in sorted(how.items()))
        yield f"{done} kills ({shown}): all results equal"


Damage = Callable[[bytes, random.Random], bytes | None]


def flip(content: bytes, rng: random.Random) -> bytes:
    """One bit of one byte is another."""
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]


def zeros(content: bytes, rng: random.Random) -> bytes:
    """A page of zeros, which no file has of its own accord."""
    place = rng.randrange(len(content)) // 4096 * 4096
    return content[:place] + bytes(len(content[place : place + 4096])) + content[place + 4096 :]


DAMAGES: dict[str, Damage] = {
    "flip": flip,
    "cut": lambda content, rng: content[: rng.randrange(len(content))],
    "one byte lost": lambda content, rng: content[: (at := rng.randrange(len(content)))] + content[at + 1 :],
    "zeros": zeros,
    "missing": lambda content, rng: None,
}


def flips(job: Job, count: int, rng: random.Random) -> Iterator[str]:
    """Damage the files of a finished run, one at a time; a line for each."""
    assert ended(start(job)) == 0, job.run.with_suffix(".log").read_text()
    expected = job.results()
    kept = job.run.with_suffix(".kept")
    for path in (job.run, job.home):
        shutil.copytree(path, kept / path.name)
    files = sorted(
        path.relative_to(kept)
        for path in kept.rglob("*")
        if path.is_file() and path.stat().st_size and not path.name.endswith(NOT_READ)
    )
    cases = [(file, name) for file in files for name in DAMAGES]
    rng.shuffle(cases)
    for file, name in cases[:count]:
        for path in (job.run, job.home):
            shutil.rmtree(path)
            shutil.copytree(kept / path.name, path)
        target = job.run.parent / file
        damaged = DAMAGES[name](target.read_bytes(), rng)
        target.unlink() if damaged is None else target.write_bytes(damaged)
        if file.parts[0] == job.home.name:  # the cache is read where stages are done again
            shutil.rmtree(job.run)
        elif "stages" in file.parts:  # and stages where the run is not known to be finished
            (job.run / "stages" / "finished.json").unlink(missing_ok=True)
        resume(job, expected)
        yield f"{file}: {name}: all results equal"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["kills", "flips"])
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import sentence_transformers  # noqa: F401 - before it is forked

    with tempfile.TemporaryDirectory() as folder:
        job = prepare(Path(folder))
        lines = 0
        for line in {"kills": kills, "flips": flips}[asked.what](job, asked.count, random.Random(asked.seed)):
            lines += 1
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{asked.what}: {asked.count} asked, seed {asked.seed}: passed ({lines} lines)\n")


if __name__ == "__main__":
    main()
