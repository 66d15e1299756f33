"""Errors that users see: each is one line, and those of the system name the path and the reason."""

import argparse
import io
import os
import re
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from antispoofing import progress
from antispoofing.commands.run import print_error, run_script
from antispoofing.errors import DataError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "a b"), "a b: No such file or directory"),
        (PermissionError(13, "Permission denied", Path("a")), "a: Permission denied"),
        (PermissionError(13, "Permission denied", b"a\xff"), r"a\udcff: Permission denied"),
        (FileExistsError(17, "File exists", "a", None, "b"), "a -> b: File exists"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("no power"), "no power"),
        (DataError("a", "b\n"), "a\nerror: b\\n"),
    ],
)
def test_an_error_is_printed_without_its_number(error, line, capsys):
    assert print_error(error) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_that_has_gone_stops_nothing(name, tmp_path, monkeypatch):
    """As in `python evaluate_custom.py | head -2`."""
    reading, writing = os.pipe()
    os.close(reading)

    def run(args, invocation) -> int:
        for _ in range(1000):
            print("x" * 100, file=getattr(sys, name))
        getattr(sys, name).flush()
        (tmp_path / "results").touch()
        print("the end", file=getattr(sys, name))
        return 0

    with open(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, name, stream)
        assert run_script("x.py", run, lambda argv: argparse.Namespace(), []) == 0
        assert (tmp_path / "results").exists()
        assert getattr(sys, name) is stream


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_quiet", [False, True])
def test_work_in_progress_shows_the_time_left_unless_quiet(is_quiet, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(tqdm, "monitor_interval", 0)

    def run(args, invocation) -> int:
        shown = progress.bar(what="scoring", unit="clip", total=10)
        if not shown.disable:
            shown.start_t -= 3  # as if it had begun so long ago
        shown.update(5)
        shown.refresh()
        shown.close()
        print("done")
        return 0

    assert run_script("x.py", run, lambda argv: argparse.Namespace(quiet=is_quiet), []) == 0
    shown = sys.stderr.getvalue()
    assert bool(re.search(r"scoring:  50%.* 5/10 \[00:03<00:03, +1\.\d+clip/s\]", shown)) != is_quiet
    assert not is_quiet or not shown
    assert not progress.is_quiet()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_was_closed_before_the_start_stops_nothing(name, monkeypatch):
    monkeypatch.setattr(sys, name, None)
    assert run_script("x.py", lambda *_: print("a") or 0, lambda argv: argparse.Namespace(), []) == 0


def test_a_reader_that_stays_gets_everything(monkeypatch):
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert run_script("x.py", lambda *_: print("a") or 0, lambda argv: argparse.Namespace(), []) == 0
    with open(reading, encoding="utf-8") as file:
        assert file.read() == "a\n"
