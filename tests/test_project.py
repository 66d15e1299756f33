"""Results name the code that made them: its version and, in a checkout, its commit, as of the start."""

import shutil
import subprocess
import tomllib
from pathlib import Path

from helpers import ROOT

from antispoofing import project
from antispoofing.project import Invocation


def git(folder: Path, *words: str) -> str:
    about = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    command = ["git", "-C", str(folder), *about, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_version_is_written_in_pyproject_alone():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert project.version() == stated == Invocation.now("x").to_dict()["project"]["version"]
    others = [
        *ROOT.glob("*.py"),
        *ROOT.glob("antispoofing/**/*.py"),
        ROOT / "CITATION.cff",
        ROOT / "README.md",
    ]
    assert not [path for path in others if f'"{stated}"' in path.read_text(encoding="utf-8")]


def test_the_commit_of_a_checkout_and_of_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "ROOT", tmp_path / "copy")
    (tmp_path / "copy").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "copy")
    assert project.commit() is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "somebody else's")
    assert project.commit() is None  # a copy inside another repository
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert project.commit() is None
    monkeypatch.delenv("GIT_DIR")
    git(tmp_path / "copy", "init", "-q")
    git(tmp_path / "copy", "add", ".")
    git(tmp_path / "copy", "commit", "-qm", "one")
    before = Invocation.now("x")
    assert before.commit == git(tmp_path / "copy", "rev-parse", "HEAD")
    (tmp_path / "copy" / "pyproject.toml").write_text("[project]\nversion = '2'\n", encoding="utf-8")
    assert Invocation.now("x").commit == f"{before.commit}-dirty"
    assert Invocation.now("x").version == "2"
