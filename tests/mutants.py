"""Change the program in one place after another, and see whether the tests notice.

    python tests/mutants.py --number 60 --seed 0

Places and changes are drawn from the network, scoring, metrics, data and training. For each mutant the
tests that reach its line run first, then all of them. The results go to a log, from which an interrupted run
resumes. It needs coverage (pip install coverage).
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
MUTATED = ("model.py", "data_utils.py", "antispoofing/metrics.py")
MUTATED += tuple(f"antispoofing/{room}/*.py" for room in ("scoring", "data", "training"))
PYTEST = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
ALL = ["-n", "auto", "--dist", "worksteal"]
SECONDS = 900  # until a mutant counts as caught because it hangs
MOST_TESTS = 400  # that are named on a command line; a line that more tests reach is left to all of them

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.USub: ast.UAdd,
}


class Mutant(NamedTuple):
    """One change: where it is, and the code before and after it."""

    file: str
    line: int
    before: str
    after: str


def mutants_in(file: Path) -> Iterator[tuple[Mutant, str]]:
    """Yield each change that can be made to a file, and the text of the whole file after it."""
    source = file.read_text(encoding="utf-8")
    data, lines = source.encode(), source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))

    def mutant(node: ast.expr | ast.stmt, text: str) -> tuple[Mutant, str]:
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        old = data[begin:end].decode()
        whole = (data[:begin] + text.encode() + data[end:]).decode()
        return Mutant(str(file.relative_to(ROOT)), node.lineno, " ".join(old.split()), text), whole

    for node in _code(ast.parse(source)):
        if isinstance(node, ast.Compare | ast.BinOp | ast.BoolOp | ast.UnaryOp):
            old = node.ops[0] if isinstance(node, ast.Compare) else node.op
            if isinstance(old, ast.Not):
                yield mutant(node, f"bool({ast.unparse(node.operand)})")
            elif type(old) in SWAPS:
                changed = ast.parse(ast.unparse(node), mode="eval").body
                new = SWAPS[type(old)]()
                if isinstance(changed, ast.Compare):
                    changed.ops[0] = new
                else:
                    changed.op = new
                yield mutant(node, f"({ast.unparse(changed)})")
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            yield mutant(node, str(not node.value) if isinstance(node.value, bool) else repr(node.value + 1))
        elif isinstance(node, ast.Return) and node.value and ast.unparse(node) != "return None":
            yield mutant(node, "return None")
        elif isinstance(node, ast.AugAssign | ast.Raise) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        ):
            yield mutant(node, "pass")


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk through what is computed: not annotations, nor the parts of formatted strings."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield child
                yield from _code(child)


def draw(number: int, seed: int) -> list[tuple[Mutant, str]]:
    """Return so many mutants, each place as likely as any other."""
    files = sorted(path for pattern in MUTATED for path in ROOT.glob(pattern))
    found = [mutant for file in files for mutant in mutants_in(file)]
    return random.Random(seed).sample(found, number)


def tests_by_line(cache: Path) -> dict[str, dict[str, list[str]]]:
    """Return which tests reach each line of each file, measured by one run of all of them."""
    if not cache.is_file():
        with tempfile.TemporaryDirectory() as folder:
            settings, data = Path(folder, "rc"), Path(folder, "data")
            settings.write_text("[run]\ndynamic_context = test_function\n")
            coverage = [sys.executable, "-m", "coverage"]
            options = [f"--rcfile={settings}", f"--data-file={data}"]
            subprocess.run([*coverage, "run", *options, "-m", "pytest", "-q"], cwd=ROOT, check=True)
            report = [*coverage, "json", *options, "--show-contexts", "-o", str(cache)]
            subprocess.run(report, cwd=ROOT, check=True)
    files = json.loads(cache.read_text())["files"]
    return {name: found["contexts"] for name, found in files.items()}


def node_ids(contexts: list[str]) -> list[str]:
    """Turn coverage's names, `test_model.test_shapes`, into pytest's."""
    names = {context.rpartition(".")[::2] for context in contexts if context.startswith("test_")}
    return sorted(
        f"tests/{module}.py::{test}" for module, test in names if (ROOT / f"tests/{module}.py").is_file()
    )


def is_caught(mutant: Mutant, text: str, reached: dict[str, list[str]]) -> bool:
    """Run the tests that reach a mutant's line, then all of them; tell whether any fails.

    Args:
        mutant: The change.
        text: The whole file after it.
        reached: The tests that reach each line of the file.
    """
    first = node_ids(reached.get(str(mutant.line), []))
    if 0 < len(first) <= MOST_TESTS and not passes(first, mutant, text):
        return True
    return not passes(ALL, mutant, text)


def passes(tests: list[str], mutant: Mutant | None = None, text: str = "") -> bool:
    """Run tests in a copy of the checkout, with a change if one is given; tell whether all pass in time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "checkout")
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for path in listed.stdout.split("\0")[:-1]:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)
        if mutant is not None:
            (folder / mutant.file).write_text(text, encoding="utf-8")
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        command = [*PYTEST, f"--basetemp={name}/temporary", *tests]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as process:
            try:
                # 4 and 5: tests were named that there are not, or that are left out; then nothing failed.
                return process.wait(SECONDS) in ((0,) if tests is ALL else (0, 4, 5))
            except subprocess.TimeoutExpired:
                return False
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    """Draw mutants, test each, and print whether it was caught or survived."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=60, help="how many mutants to draw")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    parser.add_argument("--log", type=Path, default=Path("mutants.csv"), help="where the results are kept")
    parser.add_argument("--list", action="store_true", help="only print what would be changed")
    args = parser.parse_args()
    drawn = draw(args.number, args.seed)
    if args.list:
        for mutant, _ in drawn:
            print(*mutant, sep="\t")
        return
    done: dict[Mutant, bool] = {}
    if args.log.is_file():
        with open(args.log, encoding="utf-8", newline="") as file:
            done = {Mutant(a, int(b), c, d): caught == "True" for a, b, c, d, caught in csv.reader(file)}
    elif not passes(ALL):
        sys.exit("error: the tests fail without any change, so a failure would prove nothing")
    reached = tests_by_line(args.log.with_suffix(".coverage.json"))
    for number, (mutant, text) in enumerate(drawn, start=1):
        if mutant not in done:
            done[mutant] = is_caught(mutant, text, reached.get(mutant.file, {}))
            with open(args.log, "a", encoding="utf-8", newline="") as file:
                csv.writer(file).writerow([*mutant, done[mutant]])
        print(f"{number:3} {'caught' if done[mutant] else 'SURVIVED'}  {mutant}", flush=True)
    caught = sum(done[mutant] for mutant, _ in drawn)
    print(f"{caught} of {len(drawn)} mutants are caught")


if __name__ == "__main__":
    main()
