"""ARCHITECTURE.md names every module by its docstring's first sentence; run as a script, this prints the map."""

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
ROOMS: Final = ("contracts", "gateway", "router", "monitor", "infra", "cli")


def modules() -> list[Path]:
    found = (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))
    return [path for path in found if path.name != "__init__.py" or path.parent.parent == ROOT]


def line(path: Path) -> str:
    """`- router/gates.py: The gates: one yes/no question each …`"""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(docstring.split("\n\n", 1)[0].split())
    name = path.relative_to(ROOT).as_posix()
    return f"- `{name.removesuffix('/__init__.py')}`: {first}"


def map_of_the_house() -> str:
    parts = []
    for room in ROOMS:
        lines = [line(path) for path in modules() if path.relative_to(ROOT).parts[0] == room]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def test_the_map_names_every_module_by_its_first_sentence() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    missing = [line(path) for path in modules() if line(path) not in text]
    assert missing == []


def test_the_map_names_no_module_that_is_gone() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = [each.split("`")[1] for each in text.splitlines() if each.startswith("- `")]
    assert [name for name in named if not (ROOT / name).exists()] == []


if __name__ == "__main__":
    print(map_of_the_house())  # noqa: T201 - the map is this script's output
