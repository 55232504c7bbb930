"""A real Ray cluster of two nodes on this machine: the same results, also when a worker dies in the middle."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from ranksaga.encode.engine import Engine, LocalWorkers
from ranksaga.encode.weight_files import load_weights
from ranksaga.errors import RankSagaError, UsageError

ray = pytest.importorskip("ray", reason="the ray extra is not installed")
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from ranksaga.backends import ray_cluster  # noqa: E402 - it imports ray
from ranksaga.backends.ray_cluster import Actor, Place, RayWorkers, parse_place  # noqa: E402

TINY = Path(__file__).parents[1] / "train" / "tiny_training.py"
pytestmark = pytest.mark.timeout(900)  # starting the processes takes most of it


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of two nodes of two CPUs."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    nodes.add_node(num_cpus=2)
    yield nodes.address
    nodes.shutdown()


@pytest.fixture
def connected(cluster: str) -> Iterator[None]:
    with ray_cluster._connected(Place(cluster)):
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        assert len(nodes) == 2
        for node in nodes:
            wait_until_placed_on(node)
        yield


def wait_until_placed_on(node: str) -> None:
    """A node is alive before the others know of it: work for it goes elsewhere until then."""
    where = ray.remote(num_cpus=0)(lambda: str(ray.get_runtime_context().get_node_id()))
    there = where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True))
    deadline = time.monotonic() + 60
    while ray.get(there.remote()) != node:
        assert time.monotonic() < deadline, f"no task reaches {node}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def small() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(TINY)))


@pytest.fixture(scope="module")
def model(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = small.build_tiny_bert(tmp_path_factory.mktemp("tiny"))
    return folder


def batches_of(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.integers(5, 60, (20, int(rng.integers(2, 60)))).tolist() for _ in range(60)]


OPTIONS: dict[str, Any] = {
    "query_prompt": "query: ",
    "document_prompt": "",
    "max_length": 32,
    "precision": "fp32",
    "checkpoint_seconds": 0.0,
}


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


@pytest.mark.slow
@pytest.mark.usefixtures("connected")
def test_two_pieces_of_work_side_by_side_give_the_same(small: SimpleNamespace, model: Path, tmp_path: Path) -> None:
    """A worker for each."""
    workers = RayWorkers(2)
    # Two loads at once would leave transformers changed for the whole process: ranksaga's own wait for each other.
    trained, asked = ([small.load(model) for _ in range(2)] for _ in range(2))

    def work(seed: int) -> tuple[int, dict[int, Any]]:
        folder = tmp_path / f"far-{seed}"
        workers.train(trained[seed], [small.word_pairs()], small.settings(), seed=seed, folder=folder, **OPTIONS)
        engine = Engine(asked[seed], "bf16" if seed else "fp32", "cosine")
        return workers.share, dict(workers.vectors(engine, batches_of(seed)))

    for seed, (share, found) in enumerate(workers.map(work, range(2))):
        assert share == 1
        engine = Engine(small.load(model), "bf16" if seed else "fp32", "cosine")
        expected = dict(LocalWorkers().vectors(engine, batches_of(seed)))
        assert found.keys() == expected.keys()
        assert all(np.allclose(found[place], expected[place], atol=1e-6) for place in expected)
        alone = tmp_path / f"alone-{seed}"
        small.train(small.load(model), [small.word_pairs()], small.settings(), seed=seed, folder=alone, **OPTIONS)
        assert losses(tmp_path / f"far-{seed}") == pytest.approx(losses(alone), abs=1e-4)
        assert len(losses(alone)) == 15


@pytest.mark.slow
@pytest.mark.usefixtures("connected")
def test_an_actor_that_is_killed_is_replaced(small: SimpleNamespace, model: Path) -> None:
    workers = RayWorkers(2)
    engine = Engine(small.load(model), "fp32", "cosine")
    batches = batches_of(0)
    expected = dict(LocalWorkers().vectors(engine, batches))
    actors = workers._pool()
    processes = [ray.get(actor.__ray_call__.remote(lambda self: os.getpid())) for actor in actors]
    assert len({ray.get(actor.__ray_call__.remote(node_of)) for actor in actors}) == 2
    found = {}
    for count, (place, vectors) in enumerate(workers.vectors(engine, batches)):
        found[place] = vectors
        if count == 10:
            os.kill(processes[0], signal.SIGKILL)
    assert found.keys() == expected.keys()
    assert all(np.allclose(found[place], expected[place], atol=1e-6) for place in expected)
    assert ray.get(actors[0].__ray_call__.remote(lambda self: os.getpid())) != processes[0]


def node_of(_: Actor) -> str:
    return str(ray.get_runtime_context().get_node_id())


@pytest.mark.slow
@pytest.mark.usefixtures("connected")
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_training_goes_on_when_a_worker_is_killed(small: SimpleNamespace, model: Path, tmp_path: Path) -> None:
    workers, settings = RayWorkers(2), small.settings(epochs=10)
    options = {**OPTIONS, "seed": 7}
    alone, folder = tmp_path / "alone", tmp_path / "run"
    small.train(small.load(model), [small.word_pairs()], settings, folder=alone, **options)

    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(folder / "loss.jsonl", killed), daemon=True)
    killer.start()
    told: list[int] = []
    result = workers.train(
        small.load(model),
        [small.word_pairs()],
        settings,
        folder=folder,
        progress=lambda **report: told.append(report["step"]),
        **options,
    )
    killer.join(10)
    assert len(killed) == 1
    assert (result.steps, told[-1]) == (50, 50)
    assert losses(folder) == pytest.approx(losses(alone), abs=1e-4)
    assert len(losses(folder)) == 50
    weights = load_weights(alone / "epoch-10.safetensors")
    for name, value in load_weights(result.epochs[-1]).items():
        np.testing.assert_allclose(value, weights[name], atol=1e-3, err_msg=name)
    # What the user has to mend comes back as such, and is not tried again.
    with pytest.raises(RankSagaError, match="finished run of other settings"):
        workers.train(
            small.load(model), [small.word_pairs()], small.settings(weight_decay=0.5), folder=folder, **options
        )


def kill_a_worker(log: Path, killed: list[int]) -> None:
    """Kill one of Ray Train's workers once ten steps are done."""
    while not log.exists() or log.read_text().count("\n") < 10:
        time.sleep(0.01)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::") and b"TrainWorker" in title:
            os.kill(int(process.name), signal.SIGKILL)
            killed.append(int(process.name))
            return


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_scores_the_same_on_a_cluster(
    forked: SimpleNamespace, cluster: str, tmp_path: Path, small_run: Any
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(small_run.recipe))
    line = ["run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path), "--on", f"ray:{cluster}?workers=2"]
    home = small_run.new_home(tmp_path / "home")
    shown = forked.run(["-m", "ranksaga", *line], env={**os.environ, "RANKSAGA_HOME": str(home)})
    assert shown.returncode == 0, shown.stderr
    local, far = small_run.scores(small_run.folder), small_run.scores(tmp_path / "tiny")
    assert local.keys() == far.keys()
    assert any(name.startswith("best ") for name in local)
    for name, values in local.items():
        assert far[name] == pytest.approx(values, abs=1e-4), name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Place(None, None)),
        ("4", Place(None, 4)),
        ("10.0.0.5:6379", Place("10.0.0.5:6379", None)),
        ("auto?workers=2", Place("auto", 2)),
        ("?workers=3", Place(None, 3)),
    ],
)
def test_places(text: str, expected: Place) -> None:
    assert parse_place(text) == expected


@pytest.mark.parametrize("text", ["0", "auto?workers=0", "auto?workers=many", "auto?cores=2"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(UsageError, match=r"ray:ADDRESS\?workers=N"):
        parse_place(text)


@pytest.mark.parametrize(
    ("nodes", "workers", "threads", "homes"),
    [
        ([{"CPU": 1}, {"CPU": 1}], 1, 1, "01"),  # a worker's CPUs are on one node
        ([{"CPU": 3}, {"CPU": 3}], 3, 1, "010101"),
        ([{"CPU": 8}, {}], None, 8, "0"),
        ([{"CPU": 4}, {"CPU": 16}], None, 8, "11"),
        ([{"CPU": 4, "GPU": 2}, {"CPU": 4, "GPU": 2}], None, 2, "0101"),
    ],
)
def test_workers_and_threads_fit_the_nodes(
    nodes: list[dict[str, float]], workers: int | None, threads: int, homes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ray,
        "nodes",
        lambda: [{"Alive": True, "NodeID": str(place), "Resources": one} for place, one in enumerate(nodes)],
    )
    made = RayWorkers(workers)
    assert (made._threads, "".join(made._homes)) == (threads, homes)
    assert made.workers == (
        workers or sum(int(one.get("GPU", 0)) for one in nodes) or sum("CPU" in one for one in nodes)
    )
    with pytest.raises(UsageError, match="99 workers on a cluster of"):
        RayWorkers(99)
