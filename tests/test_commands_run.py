"""Errors that users see: each is one line, and those of the system name the path and the reason."""

from pathlib import Path

import pytest

from antispoofing.commands.run import print_error
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
