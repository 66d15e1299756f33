"""Which code runs, and what was asked of it: every figure can be traced back to both."""

from __future__ import annotations

import subprocess
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"


@dataclass(frozen=True)
class Invocation:
    """One run of a command.

    Attributes:
        command: the command line.
        started: the date and time of its start, UTC, ISO 8601.
    """

    command: str
    started: str

    @classmethod
    def now(cls, command: str) -> Invocation:
        """Record a command that starts now."""
        return cls(command, datetime.now(UTC).isoformat(timespec="seconds"))


@cache
def version() -> str:
    """Return the project's version, which stands in pyproject.toml alone."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


@cache
def commit() -> str | None:
    """Return the checkout's commit, with "-dirty" where tracked files differ from it; None without git."""
    if not (ROOT / ".git").exists():  # a copy, perhaps inside somebody else's repository
        return None
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
