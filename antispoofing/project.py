"""Which code ran, and with which command: every figure can be traced back to both."""

from __future__ import annotations

import os
import subprocess
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

NAME = "antispoofing"
ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"
CUSTOM_SAMPLES = SAMPLES / "custom"


@dataclass(frozen=True)
class Invocation:
    """One run of a command.

    Attributes:
        command: The command line.
        started: When it started: date and time in UTC, ISO 8601.
        version: The project's version then.
        commit: The checkout's commit then, as `commit()` returns it.
    """

    command: str
    started: str
    version: str
    commit: str | None

    @classmethod
    def now(cls, command: str) -> Invocation:
        """Return the record of a command that starts now."""
        return cls(command, datetime.now(UTC).isoformat(timespec="seconds"), version(), commit())

    def to_dict(self) -> dict:
        """Return the record as JSON types."""
        project = {"version": self.version, "commit": self.commit}
        return {"command": self.command, "started": self.started, "project": project}


def version() -> str:
    """Return the project's version, which is written in pyproject.toml alone."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def commit() -> str | None:
    """Return the checkout's commit, with "-dirty" where tracked files differ from it; None without git."""
    if not (ROOT / ".git").exists():  # a copy, which may lie inside another repository
        return None
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
