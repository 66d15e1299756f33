"""The rooms' order holds: imports point down, in no circle, and what computes nothing loads without torch."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = "ground"
# From the bottom up; rooms of one rank know nothing of each other.
RANKS = [
    [GROUND],
    ["data", "detectors"],
    ["scoring"],
    ["training"],
    ["report"],
    ["web", "commands"],
    ["scripts"],
]
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
SCRIPTS = ("evaluate_custom", "fine_tune_for", "evaluate_custom_for", "app")
WITHOUT_TORCH = [
    "data_utils",
    "antispoofing",
    "antispoofing.metrics",
    "antispoofing.distributed",
    "antispoofing.sandbox",
    "antispoofing.scoring.scored",
    "antispoofing.scoring.decision",
    "antispoofing.scoring.timeline",
    "antispoofing.scoring.score_files",
    "antispoofing.detectors.devices",
    "antispoofing.detectors.provenance",
    "antispoofing.training.recipe",
    "antispoofing.training.history",
    "antispoofing.training.tracking",
    *SCRIPTS,
]


def modules(root: Path) -> dict[str, Path]:
    """Every module of the project, by its dotted name."""
    paths = [*root.glob("*.py"), *root.glob("antispoofing/**/*.py")]
    names = {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


def room(module: str) -> str:
    """The room that a module is in."""
    parts = module.split(".")
    if module in ("antispoofing", "antispoofing.__main__", *SCRIPTS):
        return "scripts"  # what is at the top of the house: it may use everything
    return parts[1] if len(parts) > 2 or (len(parts) == 2 and parts[1] in RANK) else GROUND


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """What a module imports of the project: anywhere in it, also within functions and for types only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                if module in known:
                    yield module
                elif node.module in known:
                    yield node.module


def faults(root: Path) -> list[str]:
    """What is against the order of the rooms, a line each."""
    known = modules(root)
    edges = {name: sorted(set(imports(path, known))) for name, path in known.items()}
    found = []
    for name, others in edges.items():
        for other in others:
            here, there = room(name), room(other)
            if here != there and RANK[there] >= RANK[here]:
                found.append(f"{name} ({here}) imports {other} ({there}), which is not below it")
            if name in ("model", "data_utils") and other.startswith("antispoofing"):
                found.append(f"{name} imports {other}, of the package")
    return found + [f"a circle: {' -> '.join(circle)}" for circle in circles(edges)]


def circles(edges: dict[str, list[str]]) -> Iterator[list[str]]:
    """Ways along the edges that lead back to where they began, each once."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> Iterator[list[str]]:
        if name in way:
            yield [*way[way.index(name) :], name]
        elif name not in done:
            for other in edges[name]:
                yield from walk(other, [*way, name])
            done.add(name)

    for name in edges:
        yield from walk(name, [])


def test_imports_point_down_and_in_no_circle():
    assert faults(ROOT) == []


def test_every_room_has_a_rank():
    rooms = {path.name for path in (ROOT / "antispoofing").iterdir() if (path / "__init__.py").is_file()}
    assert rooms == RANK.keys() - {GROUND, "scripts"}


@pytest.mark.parametrize(
    ("at", "line", "fault"),
    [
        (
            "antispoofing/data/labels.py",
            "from antispoofing.report.plots import plot_roc",
            "antispoofing.data.labels (data) imports antispoofing.report.plots (report), "
            "which is not below it",
        ),
        (
            "antispoofing/scoring/score.py",
            "def later():\n    from antispoofing.training import loop",
            "antispoofing.scoring.score (scoring) imports antispoofing.training.loop (training), "
            "which is not below it",
        ),
        (
            "data_utils.py",
            "import antispoofing.errors",
            "data_utils imports antispoofing.errors, of the package",
        ),
        (
            "antispoofing/errors.py",
            "if TYPE_CHECKING:\n    from antispoofing.sandbox import Sandbox",
            "a circle: antispoofing.errors -> antispoofing.sandbox -> antispoofing.errors",
        ),
    ],
)
def test_an_import_that_is_put_in_is_found_and_named(at, line, fault, tmp_path):
    for path in modules(ROOT).values():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    with open(tmp_path / at, "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    found = faults(tmp_path)
    assert fault in found


def test_what_computes_nothing_loads_without_torch():
    known = modules(ROOT)
    names = [*WITHOUT_TORCH, *(name for name in known if room(name) in ("data", "report", "commands"))]
    code = "\n".join(
        f"import {name}; assert 'torch' not in sys.modules, {name!r}" for name in dict.fromkeys(names)
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_only_commands_print():
    """The library returns or logs."""
    for name, path in modules(ROOT).items():
        if room(name) not in ("commands", "scripts"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
            assert not [f for f in calls if isinstance(f, ast.Name) and f.id == "print"], name
