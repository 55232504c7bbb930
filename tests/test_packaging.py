"""What is installed, what it asks for, and the repository's own settings."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/ranksaga"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DISTRIBUTION = {  # of packages that are imported under another name
    "sentence_transformers": "sentence-transformers",
    "Stemmer": "pystemmer",
    "yaml": "pyyaml",
    "huggingface_hub": "huggingface-hub",
    "ir_datasets": "ir-datasets",
}
BROUGHT_ALONG = {"markupsafe": "jinja2", "click": "typer"}  # a declared package has it in its own interface
OPTIONAL = {  # the one module that imports it
    "modal": "backends/modal_cloud.py",
    "ray": "backends/ray_cluster.py",
    "datasets": "data/importing/hub_datasets.py",
    "ir-datasets": "data/importing/collections.py",
    "openpyxl": "data/importing/tables.py",
    "pypdf": "data/importing/extract.py",
}
EXTRAS = {"modal": ["modal"], "ray": ["ray"], "import": ["datasets", "ir-datasets", "openpyxl", "pypdf"]}


def name_of(requirement: str) -> str:
    """The distribution that a requirement asks for, as PyPI spells it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;@]", requirement)[0]).lower()


def imports(file: Path) -> set[str]:
    """Packages outside of the standard library that a module imports, at its top or in a function."""
    packages: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            packages.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            packages.add(node.module.partition(".")[0])
    return packages - sys.stdlib_module_names - {"ranksaga"}


def imported_distributions() -> dict[str, set[str]]:
    """Distribution -> the modules of the package that import it, as paths below it."""
    users: dict[str, set[str]] = {}
    for file in SOURCE.rglob("*.py"):
        for package in imports(file):
            name = DISTRIBUTION.get(package, package)
            name = BROUGHT_ALONG.get(name, name)
            users.setdefault(name, set()).add(file.relative_to(SOURCE).as_posix())
    return users


def test_every_import_is_a_required_package_and_every_required_package_is_imported() -> None:
    required = {name_of(line) for line in PROJECT["project"]["dependencies"]}
    imported = {name for name, users in imported_distributions().items() if users != {OPTIONAL.get(name)}}
    assert imported - required == set()
    assert required - imported == set()


def test_an_extra_is_named_where_its_package_is_imported() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert sorted(name for names in EXTRAS.values() for name in names) == sorted(OPTIONAL)
    for extra, names in EXTRAS.items():
        assert [name_of(line) for line in extras[extra]] == names
    required = {name_of(line) for line in PROJECT["project"]["dependencies"]}
    twice = {line for lines in extras.values() for line in lines if name_of(line) in required and "[" not in line}
    assert twice == set(), "already required"


def test_every_declared_package_has_its_version_in_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert [line for line in pinned if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.+]+", line)] == []
    names = [name_of(line) for line in pinned]
    assert len(names) == len(set(names))
    declared = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    for lines in PROJECT["project"]["optional-dependencies"].values():
        declared += lines
    assert {name_of(line) for line in declared} - set(names) == set()


def test_every_c_file_is_compiled_and_every_header_makes_it_again() -> None:
    (extension,) = PROJECT["tool"]["setuptools"]["ext-modules"]
    assert sorted(extension["sources"]) == sorted(str(file.relative_to(ROOT)) for file in SOURCE.rglob("*.c"))
    assert sorted(extension["depends"]) == sorted(str(file.relative_to(ROOT)) for file in SOURCE.rglob("*.h"))
    assert extension["optional"] is True


def build(kind: str, source: Path, out: Path, compiler: str) -> Path:
    """Build a ``wheel`` or an ``sdist`` of the folder with the setuptools at hand, without network."""
    out.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"],
        cwd=source,
        env={**os.environ, "CC": compiler, "CXX": compiler},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of a copy of the repository, so that nothing is written beside the source."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"):
        shutil.copy(ROOT / name, copy)
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info"))
    return build("sdist", copy, copy / "dist", "false")


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (inside,) = folder.iterdir()
    return inside


def source_files(*left_out: str) -> set[str]:
    files = (file for file in SOURCE.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {file.relative_to(ROOT / "src").as_posix() for file in files if file.suffix not in (".so", *left_out)}


def test_the_sdist_has_all_that_a_build_needs_and_no_tests(unpacked: Path) -> None:
    files = {file.relative_to(unpacked).as_posix() for file in unpacked.rglob("*") if file.is_file()}
    assert {name for name in files if name.startswith("src/ranksaga/")} == {f"src/{name}" for name in source_files()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"} <= files
    assert [name for name in files if name.startswith("tests/") or name.endswith(".so")] == []


def test_a_wheel_without_a_compiler_has_all_of_the_package_and_nothing_else(unpacked: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", unpacked, tmp_path / "dist", "false")) as wheel:
        files = {name for name in wheel.namelist() if ".dist-info/" not in name}
        metadata = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA"))
        commands = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    assert files == source_files(".c", ".h")
    assert {"ranksaga/py.typed", "ranksaga/data/catalog.json", "ranksaga/report/templates/report.html.j2"} <= files
    assert "ranksaga = ranksaga.cli:main" in commands
    assert "License-Expression: Apache-2.0" in metadata
    assert "accelerate" not in metadata


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="there is no C compiler")
def test_a_wheel_with_a_compiler_has_the_kernels_besides(unpacked: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(unpacked, tmp_path / "source")
    wheel = build("wheel", copy, tmp_path / "dist", "cc" if shutil.which("cc") else "gcc")
    with zipfile.ZipFile(wheel) as archive:
        besides = {name for name in archive.namelist() if ".dist-info/" not in name} - source_files(".c", ".h")
    assert len(besides) == 1
    assert re.fullmatch(r"ranksaga/kernels/_kernels\..*\.so", besides.pop())


# The repository's own settings.

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SETTINGS = [
    *WORKFLOWS,
    *sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")),
    ROOT / ".pre-commit-config.yaml",
    *sorted(ROOT.glob("studies/*.yaml")),
    *sorted(ROOT.glob("benchmarking/*.yaml")),
]


def read_yaml(file: Path) -> dict[Any, Any]:
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in read_yaml(workflow)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("file", SETTINGS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_settings_file_is_yaml(file: Path) -> None:
    assert read_yaml(file)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_names_its_triggers_machines_limits_and_rights(workflow: Path) -> None:
    values = read_yaml(workflow)
    assert values[True]  # "on", which YAML 1.1 reads as true
    assert values["permissions"] == {"contents": "read"}
    for job in values["jobs"].values():
        assert job["runs-on"]
        assert job["timeout-minutes"] <= 90
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])


def test_what_a_workflow_runs_is_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    commands = [command for workflow in WORKFLOWS for step in steps(workflow) for command in [step.get("run", "")]]
    made = {target for command in commands for target in re.findall(r"^make (\w+)", command, flags=re.MULTILINE)}
    assert made
    assert made <= targets
    scripts = {script for command in commands for script in re.findall(r"\.ci/\w+", command)}
    assert scripts == {".ci/run", ".ci/package"}
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)


def test_every_install_goes_through_the_constraints() -> None:
    files = [*WORKFLOWS, ROOT / "Makefile", ROOT / ".ci/run", ROOT / ".ci/package"]
    installs = [
        line.strip()
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
        if "pip install" in line and not line.lstrip().startswith("#")
    ]
    assert len(installs) >= 5
    assert [line for line in installs if "-c constraints.txt" not in line] == []


def test_tests_run_on_every_python_that_the_package_names() -> None:
    named = [
        line.rpartition(" ")[2]
        for line in PROJECT["project"]["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", line)
    ]
    matrix = read_yaml(ROOT / ".github/workflows/tests.yml")["jobs"]["core"]["strategy"]["matrix"]
    assert matrix["python"] == named
    assert matrix["os"] == ["ubuntu-latest", "macos-latest"]
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"
    wheels = [f"cp{version.replace('.', '')}-*" for version in named]
    assert PROJECT["tool"]["cibuildwheel"]["build"] == wheels


def test_a_release_is_published_without_a_token_after_its_checks() -> None:
    values = read_yaml(ROOT / ".github/workflows/release.yml")
    assert values[True] == {"push": {"tags": ["v*"]}}
    publish = values["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert set(publish["needs"]) == set(values["jobs"]) - {"publish"}
    assert "secrets." not in json.dumps(values)


def test_pre_commit_has_the_ruff_of_the_constraints() -> None:
    pinned = re.search(r"^ruff==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert pinned
    hooks = {repo["repo"]: repo for repo in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]}
    assert hooks["https://github.com/astral-sh/ruff-pre-commit"]["rev"] == f"v{pinned[1]}"


def test_a_study_is_found_by_its_earlier_path_too() -> None:
    moved = {"offline-study": "offline-study", "unseen-packages": "unseen-packages", "e5-beir": "first-study"}
    for name, study in moved.items():
        recipe, link = ROOT / f"studies/{study}.yaml", ROOT / f"benchmarking/{name}.yaml"
        assert link.resolve() == recipe.resolve()


def test_the_gate_for_workflows_fails_where_a_model_got_worse(tmp_path: Path) -> None:
    """The action's own script, with a stand-in for the command that writes down what it was asked."""
    steps = read_yaml(ROOT / "action.yml")["runs"]["steps"]
    assert "-c" in steps[0]["run"].split()
    inputs = {"BASELINE": "-a b", "CANDIDATE": "$(touch pwned)", "MAX_LOSS": "2%", "METRIC": "ndcg_at_10"}
    assert set(steps[1]["env"]) == set(inputs)
    assert "${{" not in steps[1]["run"]
    program = tmp_path / "ranksaga"
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\" > asked\necho table\nexit 3\n")
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    for limit, given in (("2%", ["--max-loss=2%"]), ("", [])):
        done = subprocess.run(
            ["bash", "-e", "-c", steps[1]["run"]], cwd=tmp_path, env={**environment, **inputs, "MAX_LOSS": limit}
        )
        assert done.returncode == 3
        asked = (tmp_path / "asked").read_text().splitlines()
        gate = ["--fail-on-regression", "--metric", "ndcg_at_10", *given]
        assert asked == ["compare", *gate, "--format", "markdown", "--", "-a b", "$(touch pwned)"]
    assert (tmp_path / "summary").read_text() == "table\n" * 2
    assert not (tmp_path / "pwned").exists()
