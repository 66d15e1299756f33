"""Uploads are removed when they are old, and when there are too many."""

import os
import time

import pytest

from antispoofing.web.guard import regular_sweeps, sweep


@pytest.fixture
def folder(tmp_path):
    """Write files of 100 bytes, each ten seconds older than the one before."""
    for i in range(5):
        path = tmp_path / str(i) / "a.wav"
        path.parent.mkdir()
        path.write_bytes(bytes(100))
        os.utime(path, (time.time() - 10 * i, time.time() - 10 * i))
    return tmp_path


def left(folder):
    return sorted(path.parent.name for path in folder.rglob("*.wav"))


@pytest.mark.parametrize(
    ("seconds", "most_bytes", "expected"),
    [(1000, 1000, "01234"), (25, 1000, "012"), (1000, 250, "01"), (1000, 0, ""), (15, 450, "01")],
)
def test_the_old_and_the_many_are_removed(folder, seconds, most_bytes, expected):
    sweep(folder, seconds, most_bytes)
    assert "".join(left(folder)) == expected


def test_sweeping_goes_on_until_the_end(folder):
    with regular_sweeps(folder, seconds=15, most_bytes=1000, every=0.01):
        deadline = time.monotonic() + 30
        while left(folder) != ["0", "1"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    (folder / "old.wav").write_bytes(b"x")
    os.utime(folder / "old.wav", (0, 0))
    time.sleep(0.1)
    assert (folder / "old.wav").exists()


def test_empty_folders_go_with_their_files(folder):
    os.utime(folder / "4", (0, 0))
    (folder / "new").mkdir()
    sweep(folder, 35, 1000)
    sweep(folder, 35, 1000)
    assert (folder / "3").exists()
    assert (folder / "new").exists()
    os.utime(folder / "4", (0, 0))
    sweep(folder, 35, 1000)
    assert not (folder / "4").exists()


def test_a_folder_that_does_not_exist_is_not_made(tmp_path):
    sweep(tmp_path / "none", 1, 1)
    assert not (tmp_path / "none").exists()
