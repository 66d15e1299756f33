"""Which code runs, and what was asked of it: every figure can be traced back to both."""

from __future__ import annotations

import os
import subprocess
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"
CUSTOM_SAMPLES = SAMPLES / "custom"


@dataclass(frozen=True)
class Invocation:
    """One run of a command.

    Attributes:
        command: the command line.
        started: the date and time of its start, UTC, ISO 8601.
        version, commit: of the project then, see `version` and `commit`.
    """

    command: str
    started: str
    version: str
    commit: str | None

    @classmethod
    def now(cls, command: str) -> Invocation:
        """Record a command that starts now."""
        return cls(command, datetime.now(UTC).isoformat(timespec="seconds"), version(), commit())

    def to_dict(self) -> dict:
        """Return it as JSON types."""
        project = {"version": self.version, "commit": self.commit}
        return {"command": self.command, "started": self.started, "project": project}


def version() -> str:
    """Return the project's version, which stands in pyproject.toml alone."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def commit() -> str | None:
    """Return the checkout's commit, with "-dirty" where tracked files differ from it; None without git."""
    if not (ROOT / ".git").exists():  # a copy, perhaps inside somebody else's repository
        return None
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
