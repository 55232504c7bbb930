"""JSON from outside: strict, bounded, and otherwise equal to what Python's own parser gives."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranksaga.untrusted.json_input import load_json, parse_json

REFUSED = {
    "depth": ("[" * 100_000 + "]" * 100_000, "nested"),
    "objects in objects": ('{"a":' * 100_000, "nested"),
    "digits": ('{"a": ' + "9" * 4301 + "}", "4301 digits"),
    "NaN": ('{"a": NaN}', "NaN"),
    "Infinity": ("[-Infinity]", "Infinity"),
    "beyond floats": ("[1e999]", "1e999"),
    "a key twice": ('{"_id": "a", "text": "x", "_id": "b"}', "'_id' stands twice"),
    "a key twice, inside": ('{"m": {"x": 1, "\\u0078": 2}}', "'x' stands twice"),
    "two values": ("{} {}", "Extra data"),
    "control character": ('"\x00"', "control character"),
    "byte order mark": ("\ufeff{}", ""),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    text, message = REFUSED[case]
    with pytest.raises(ValueError, match=r".") as caught:
        parse_json(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@given(VALUES, st.booleans())
@settings(max_examples=100, deadline=None)
def test_sound_json_is_what_pythons_parser_reads(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text) == value == json.loads(text)


@given(st.text(st.sampled_from('{}[]:,"\\u01eE+-.naN trufls\n\x00é')))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_as_python_does_or_refused(text: str) -> None:
    try:
        value = parse_json(text)
    except ValueError:
        return
    assert value == json.loads(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}".encode("utf-16"), "UTF-16"), (b'{"a": "\xff"}', "0xff"), (b"[1,", "delimiter|value")],
)
def test_a_file_that_is_no_utf_8_or_is_cut(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_json(tmp_path / "a.json")


def test_a_mark_at_the_start_of_a_file_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert load_json(tmp_path / "a.json") == [1]


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name, kind in (("fifo", "a FIFO"), ("device", "a device"), (".", "a folder")):
        with pytest.raises(OSError, match=kind):
            load_json(tmp_path / name)
