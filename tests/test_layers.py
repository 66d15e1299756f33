"""The layers hold: imports point down, without cycles, and what computes nothing loads without torch."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT

GROUND = "ground"
AUDIO = "antispoofing.audio"  # all that data_utils.py imports of the package
# From the bottom up; rooms of the same rank do not import from each other.
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
BY_NAME = (
    "antispoofing.detectors.families",
    "antispoofing",
    "antispoofing.__main__",
    "antispoofing.sandbox",
)  # these may import by name
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
    """Return every module of the project, by its dotted name."""
    paths = [*root.glob("*.py"), *root.glob("antispoofing/**/*.py")]
    names = {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


def room(module: str) -> str:
    """Return the room that a module is in."""
    parts = module.split(".")
    if module in ("antispoofing", "antispoofing.__main__", *SCRIPTS):
        return "scripts"  # these are at the top and may import everything
    return parts[1] if len(parts) > 2 or (len(parts) == 2 and parts[1] in RANK) else GROUND


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Yield what a module imports of the project, also within functions and for types only."""
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
    """Return a line for each import that breaks the order of the rooms."""
    known = modules(root)
    edges = {name: sorted(set(imports(path, known))) for name, path in known.items()}
    found = []
    for name, others in edges.items():
        found += evasions(name, known[name])
        for other in others:
            here, there = room(name), room(other)
            if here != there and RANK[there] >= RANK[here]:
                found.append(f"{name} ({here}) imports {other} ({there}), which is not below it")
            if name in ("model", "data_utils") and other.startswith("antispoofing") and other != AUDIO:
                found.append(f"{name} imports {other}, of the package")
            if other in SCRIPTS:
                found.append(f"{name} imports {other}, a script")
    return found + [f"a cycle: {' -> '.join(cycle)}" for cycle in cycles(edges)]


def evasions(name: str, path: Path) -> Iterator[str]:
    """Yield imports that would evade the order of the rooms: by name, and of tests and benchmarks."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        words = {getattr(node, "id", ""), getattr(node, "attr", "")}
        if words & {"import_module", "__import__"} and name not in BY_NAME:
            yield f"{name} imports by name, line {node.lineno}"
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (f"{name} imports {m}" for m in modules if m.split(".")[0] in ("tests", "benchmarks"))


def cycles(edges: dict[str, list[str]]) -> Iterator[list[str]]:
    """Yield the cycles among the edges, each once."""
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


def test_imports_point_down_and_have_no_cycles():
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
            "a cycle: antispoofing.errors -> antispoofing.sandbox -> antispoofing.errors",
        ),
        (
            "antispoofing/data/labels.py",
            "import importlib; importlib.import_module('antispoofing.report.plots')",
            "antispoofing.data.labels imports by name, line {last}",
        ),
        (
            "antispoofing/report/plots.py",
            "import tests.conftest",
            "antispoofing.report.plots imports tests.conftest",
        ),
        ("app.py", "import evaluate_custom", "app imports evaluate_custom, a script"),
    ],
)
def test_a_forbidden_import_is_found_and_named(at, line, fault, tmp_path):
    for path in modules(ROOT).values():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    with open(tmp_path / at, "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    last = len((tmp_path / at).read_text(encoding="utf-8").splitlines())
    assert fault.format(last=last) in faults(tmp_path)


NOTHING_SLOW = """
import sys

class NothingSlow:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "librosa", "sklearn"):
            raise ImportError(name)

sys.meta_path.insert(0, NothingSlow())
"""


def run_without_torch(code: str, folder: Path) -> str:
    """Return what a program prints when importing torch, librosa or scikit-learn is an error."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"{NOTHING_SLOW}\n{code}"]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_computes_nothing_loads_without_torch(tmp_path):
    known = modules(ROOT)
    names = [*WITHOUT_TORCH, *(name for name in known if room(name) in ("data", "report", "web", "commands"))]
    run_without_torch("\n".join(f"import {name}" for name in dict.fromkeys(names)), tmp_path)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_shows_its_options_without_torch(name, tmp_path):
    assert "--checkpoint" in run_without_torch(f"import {name}; {name}.main(['--help'])", tmp_path)


def test_commands_run_without_torch(tmp_path):
    rows = "".join(f"{i}.wav,{'real' if i % 2 else 'fake'},{i * 7 % 10}\n" for i in range(10))
    (tmp_path / "scores.csv").write_text(f"path,label,score\n{rows}", encoding="utf-8")
    clips = str(ROOT / "samples" / "for-2seconds" / "testing")
    for arguments in (["metrics", "scores.csv", "--output", "out"], ["audit", "--data", clips]):
        run_without_torch(f"from antispoofing.__main__ import main; sys.exit(main({arguments}))", tmp_path)
    assert (tmp_path / "out" / "roc.png").is_file()
    assert "Hub" in run_without_torch(
        "from antispoofing.__main__ import main; main(['download', '--help'])", tmp_path
    )


def test_only_commands_print():
    """The library returns values, raises or logs."""
    for name, path in modules(ROOT).items():
        if room(name) not in ("commands", "scripts"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
            assert not [f for f in calls if isinstance(f, ast.Name) and f.id == "print"], name
