"""The table of arguments that Python calls the kernels by, against the prototypes in the C files."""

from __future__ import annotations

import re
from pathlib import Path

import ranksaga.kernels.compiled as compiled
from ranksaga.kernels.compiled import ARGUMENTS, ARRAYS, BLOCK, KINDS, NUMBERS

FOLDER = Path(compiled.__file__).parent
SOURCES = {path.name: path.read_text() for path in FOLDER.glob("*.[ch]")}
COMMENTS = re.compile(r"/\*.*?\*/", re.DOTALL)
# A function that other files, and Python, can call: it starts a line, is not static, and has a body.
DEFINITION = re.compile(
    r"^(?!static|typedef|VECTOR static|TILES static)([\w *]+?)\b(\w+)\(([^()]*)\)\s*\{", re.MULTILINE
)
CODES = {
    "int": "k",
    "int64_t": "i",
    "double": "d",
    "bf16 *": "b",
    "float *": "f",
    "int64_t *": "l",
    "int32_t *": "w",
}


def code_of(parameter: str) -> str:
    """The table's code of a parameter such as ``const float *weight``."""
    matched = re.fullmatch(r"(?:const )?(\w+) (\*?)\w+", parameter)
    assert matched is not None, parameter
    return CODES[f"{matched[1]} {matched[2]}".rstrip()]


def prototypes() -> dict[str, str]:
    """Codes of every function that the library shows and ``products.h`` does not hide."""
    header = COMMENTS.sub("", SOURCES["products.h"])
    result = {}
    for name, text in SOURCES.items():
        if not name.endswith(".c"):
            continue
        for returned, function, parameters in DEFINITION.findall(COMMENTS.sub("", text)):
            if re.search(rf"HIDDEN [^;]*\b{function}\(", header):
                continue
            assert returned.strip() == "int", f"{name}: {function} gives {returned.strip()}, and 0 means that it worked"
            parts = [" ".join(part.split()) for part in parameters.split(",")]
            result[function] = "" if parts == ["void"] else "".join(map(code_of, parts))
    return result


def test_every_argument_has_the_type_of_its_prototype() -> None:
    found = prototypes()
    assert found.pop("kernels_kind") == ""
    assert found == ARGUMENTS


def test_every_code_is_known_to_python() -> None:
    assert set(CODES.values()) == {*NUMBERS, *ARRAYS}


def test_constants_are_those_of_the_header() -> None:
    header = SOURCES["products.h"]
    block = re.search(r"#define BLOCK (\d+)", header)
    kinds = re.search(r"enum \{ (.*?) \}", header)
    assert block is not None
    assert kinds is not None
    assert int(block[1]) == BLOCK
    names = [name.strip() for name in kinds[1].split(",")]
    assert names == ["NONE", "WITH_AVX512", "WITH_AMX"]
    assert KINDS == {1: "AVX-512 BF16", 2: "AMX"}
