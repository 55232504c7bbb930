"""YAML from outside: bounded, without surprises, and equal to what PyYAML writes."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ranksaga.config.load import load_recipe
from ranksaga.encode.prompts import name_hints
from ranksaga.errors import RecipeError
from ranksaga.untrusted.escape import printable
from ranksaga.untrusted.yaml_input import LARGEST, YamlError, dump_yaml, read_yaml

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
)
REFUSED: dict[str, tuple[Any, str, int | None]] = {
    "nine levels of aliases": (BOMB, "multiply", 4),
    "many aliases": (f"a: &a [{'1,' * 99}]\nb: [{'*a,' * 999}]", "multiply", 2),
    "merge bomb": ("a: &a {k: 1}\n" + "b: &b {<<: *b}", "inside what it names", 2),
    "recursive list": ("a: &a [*a]", "inside what it names", 1),
    "recursive mapping": ("x: 1\na: &a {b: *a}", "inside what it names", 2),
    "no anchor": ("a: *b", "no anchor", 1),
    "flow nesting": ("[" * 500 + "]" * 500, "nested", 1),
    "block nesting": ("\n".join(" " * depth + "a:" for depth in range(500)), "nested", 66),
    "lists in lists": ("- " * 1000, "nested", 1),
    "nesting by aliases": ("\n".join([f"a: &a0 {'[' * 60}{']' * 60}", f"b: {'[' * 9}*a0{']' * 9}"]), "nested", 2),
    "4,301 digits": ("\nseed: " + "9" * 4301, "4301", 2),
    "hexadecimal": ("seed: 0x" + "f" * 5000, "5002", 1),
    "beyond 64 bits": ("seed: 9223372036854775808", "64 bits", 1),
    "a key twice": ("model: a\nseed: 1\nmodel: b", "'model' stands twice, first on line 1", 3),
    "a key twice, quoted": ("a: 1\n'a': 1", "twice", 2),
    "a key twice, inside": ("a:\n  - {b: 1, b: 2}", "twice", 2),
    "two merge keys": ("a: &a {x: 1}\nb: {<<: *a, <<: *a}", "twice", 2),
    "merging a number": ("<<: 3", "merges mappings", 1),
    "python tag": ("!!python/object/apply:os.system [ls]", "tag", 1),
    "own tag": ("a: !foo x", "tag", 1),
    "binary": ("a: !!binary aGk=", "tag", 1),
    "set": ("!!set {a}", "tag", 1),
    "wrong tag": ("a: !!int x", "tag", 1),
    "a list as a key": ("? [a]\n: b", "key", 1),
    "two documents": ("--- 1\n--- 2", "second document", 2),
    "NUL": ("a: b\nc: \0", "U+0000", 2),
    "escape": ("a: \x1b[2J", "U+001B", 1),
    "half a character": ("a: \udcff", "U+DCFF", 1),
    "UTF-16": ("a: 1".encode("utf-16"), "UTF-16", None),
    "UTF-32": ("a: 1".encode("utf-32"), "UTF-32", None),
    "UTF-16 without a mark": ("a: 1".encode("utf-16-le"), "U+0000", 1),
    "Latin-1": (b"a: \xe9", "0xe9", None),
    "too large": ("#" * (LARGEST + 1), "more than", None),
    "unclosed": ("a: [1,", "", 2),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_names_its_line_at_once(case: str) -> None:
    source, message, line = REFUSED[case]
    start = time.process_time()
    with pytest.raises(YamlError) as caught:
        read_yaml(source)
    assert time.process_time() - start < 0.25
    assert message in caught.value.problem
    assert caught.value.line == line
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # YAML 1.1 has truth values, numbers of base 60 and 8, and dates here; 1.2 has text.
        ("[no, yes, on, off, y]", ["no", "yes", "on", "off", "y"]),
        (
            "[1:30, 190:20:30, 010, 0o17, 1_000, 2024-01-01]",
            ["1:30", "190:20:30", "010", "0o17", "1_000", "2024-01-01"],
        ),
        ("[1e-5, 1e999, 12e03]", ["1e-5", "1e999", "12e03"]),
        ("[1, -3, +4, 0, 0x10, 1.5, .5, 1.0e+3, -0.25]", [1, -3, 4, 0, 16, 1.5, 0.5, 1000.0, -0.25]),
        ("[true, FALSE, null, ~, ]", [True, False, None, None]),
        ("[!!str 12, !!int 12, !!float 1, '12', ! 12]", ["12", 12, 1.0, "12", "12"]),
        ("{no: 1, 12: 2, null: 3}", {"no": 1, "12": 2, "null": 3}),
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        ("- &a {x: 1}\n- &b {x: 2, y: 2}\n- {<<: [*a, *b]}", [{"x": 1}, {"x": 2, "y": 2}, {"x": 1, "y": 2}]),
        ("'<<': 3", {"<<": 3}),
        (b"\xef\xbb\xbfa: \xc3\xa9", {"a": "é"}),
        ("", None),
        ("%YAML 1.1\n---\na: 1\n...\n", {"a": 1}),
    ],
)
def test_what_plain_values_mean(text: str | bytes, value: Any) -> None:
    assert read_yaml(text).value == value


def test_aliases_are_copies() -> None:
    value = read_yaml("a: &a {x: {y: 1}}\nb: *a\nc: {<<: *a}").value
    value["b"]["x"]["y"] = 2
    assert value == {"a": {"x": {"y": 1}}, "b": {"x": {"y": 2}}, "c": {"x": {"y": 1}}}


def test_lines_are_those_of_the_text() -> None:
    assert read_yaml("a:\n  b: 1\n\nc:\n  - x\n  - {d: 2}\n").lines == {
        ("a",): 1,
        ("a", "b"): 2,
        ("c",): 4,
        ("c", "0"): 5,
        ("c", "1"): 6,
        ("c", "1", "d"): 6,
    }


PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@given(VALUES, st.booleans())
@example(["no", "1:30", "010", "1e5", "=", "<<", "2024-01-01", "0x1f", ".inf", "~", "\u2028", "\x1b"], False)
@example({"<<": {"a": 1}, "=": 1, "-": [], "a: b": {}}, True)
@settings(max_examples=150, deadline=None)
def test_what_pyyaml_writes_is_read_back(value: Any, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    if yaml.safe_load(text) == value:  # it writes U+0085 so that it comes back as a space
        assert read_yaml(text).value == value


@pytest.mark.slow
@given(st.dictionaries(st.text(), VALUES, max_size=4))
@example({"prompt": "a\x85b\u2028c\u202ed\x1b[2J\n```\n"})
@settings(max_examples=150, deadline=None)
def test_what_is_written_here_reads_back_everywhere(values: dict[str, Any]) -> None:
    text = dump_yaml(values)
    assert read_yaml(text).value == values
    assert yaml.safe_load(text) == values
    assert all(printable(line) == line for line in text.splitlines())


@given(st.text(st.sampled_from("ab01:-[]{}&*!|>'\"#%@`,?~<.\n\t \x00é\udcff")) | st.binary())
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(source: str | bytes) -> None:
    try:
        value = read_yaml(source).value
    except YamlError:
        return
    try:
        theirs = yaml.load(source, yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeError):
        return
    assert _as_text(value) == _as_text(theirs)


def _as_text(value: Any) -> Any:
    """Without the types of scalars, which PyYAML's BaseLoader does not resolve."""
    if isinstance(value, dict):
        return {str(key): _as_text(inner) for key, inner in value.items()}
    return [_as_text(inner) for inner in value] if isinstance(value, list) else None


def test_infinity_is_a_number_that_no_setting_takes() -> None:
    assert [math.isfinite(value) for value in read_yaml("[.inf, -.inf, .nan]").value] == [False] * 3


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (BOMB, ()),
        ("datasets: [a]\nmodel: b\nmodel: c", ()),
        ("datasets: [a]\nseed: " + "9" * 4301, ()),
        ("datasets: [a]\nseed: '" + "9" * 4301 + "'", ()),
        ("datasets: [a]\nseed: '99999999999999999999999'", ()),
        ("datasets: [a]\nname: " + "a" * 300, ()),
        ("datasets: [a]\nsystems: {best: {learning_rate: .nan}}", ()),
        ("datasets: [a]\nseed: '" + "x" * 100_000 + "'", ()),
        ("datasets: [a]", ("model" + ".a" * 3000 + "=1",)),
        ("datasets: [a]", ("model=" + "[" * 500,)),
        ("datasets: [a]", ("model=\0",)),
    ],
)
def test_a_hostile_recipe_is_one_short_line(text: str, overrides: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "r.yaml", overrides, environment={})
    assert time.process_time() - start < 0.5
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_truth_values_and_names_of_yaml_1_1_reach_a_recipe_as_meant(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "datasets: [no, 1:30, 2024-01-01, 010]\ntrust_remote_code: yes\nallow_pickle: off\n"
        "systems:\n  mine: &mine {like: best, learning_rate: 1e-5}\n  other: *mine\n"
    )
    recipe = load_recipe(tmp_path / "r.yaml", ["systems.other.epochs=9", "guards=[on]"], environment={})
    assert recipe.datasets == ("no", "1:30", "2024-01-01", "010")
    assert recipe.guards == ("on",)
    assert (recipe.trust_remote_code, recipe.allow_pickle) == (True, False)
    assert (recipe.systems["mine"].learning_rate, recipe.systems["other"].epochs) == (1e-5, 9)
    assert recipe.systems["mine"].epochs == 5, "a setting of one system must not reach another by an alias"


@pytest.mark.parametrize("kind", ["fifo", "folder", "/dev/zero"])
def test_a_recipe_is_a_regular_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(kind)
    with pytest.raises(RecipeError, match="expected a regular file"):
        load_recipe(path, environment={})


@pytest.mark.parametrize("front", [BOMB, "a: &a [*a]", "[" * 2000, "x: " + "9" * 5000, "x: 2024-99-99"])
def test_a_hostile_model_card_names_nothing(front: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\nbase_model: intfloat/e5-base\n{front}\n---\n")
    start = time.process_time()
    hints = name_hints("model", tmp_path)
    assert time.process_time() - start < 0.25
    assert ("intfloat/e5-base" in hints) == front.startswith("x: 2024")
