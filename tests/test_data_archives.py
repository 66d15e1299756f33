"""Data sets in archives, and malicious archives."""

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import CLIPS, recording, write_zip

from antispoofing.data import archives
from antispoofing.data.layouts import SPLITS
from antispoofing.data.recordings import find_recordings, find_splits
from antispoofing.errors import DataError


def write_tar(path, files=CLIPS, mode="w:gz", change=lambda member: member):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(change(member), io.BytesIO(content))
    return path


PACKED = {
    "a.zip": lambda path: write_zip(path, CLIPS, compression=zipfile.ZIP_DEFLATED),
    "B.ZIP": lambda path: write_zip(path, CLIPS, compression=zipfile.ZIP_LZMA),
    "a.tar": lambda path: write_tar(path, mode="w"),
    "a.tar.gz": write_tar,
    "a.tgz": write_tar,
    "a.tar.bz2": lambda path: write_tar(path, mode="w:bz2"),
    "a.tar.xz": lambda path: write_tar(path, mode="w:xz"),
    "pax.tar.gz": lambda path: write_tar(path, mode="w:gz", change=named_by_pax),
}


def named_by_pax(member):
    member.pax_headers = {"comment": "by pax"}
    return member


def test_archives_inside_archives_are_named(tmp_path, logged):
    inner = write_zip(tmp_path / "inner.zip").read_bytes()
    outer = write_zip(tmp_path / "outer.zip", {"set/Dataset.zip": inner, "readme.txt": b""})
    with pytest.raises(DataError, match=r"no recordings.*1 archive \(set/Dataset\.zip\), to be unpacked"):
        find_recordings([write_zip(tmp_path / "only.zip", {"set/Dataset.zip": inner})])
    with pytest.raises(DataError, match=r"no recordings in \S*outer\.zip, but 1 archive \(set/Data"):
        find_recordings([outer])
    beside = write_zip(tmp_path / "beside.zip", CLIPS | {"part2.7z": b"7z", "notes.md": b""})
    assert len(find_recordings([beside]).utterances) == 2
    assert "skipped 3 files that cannot be used, among them 1 archive (part2.7z)" in logged.text


def test_archives_in_a_folder_are_named(tmp_path):
    write_zip(tmp_path / "set.zip")
    (tmp_path / "more.rar").touch()
    with pytest.raises(DataError, match=r"no recordings in .*2 archives \(\S*more\.rar, \S*set\.zip\)"):
        find_recordings([tmp_path])


@pytest.mark.parametrize("name", ["a.rar", "a.7z", "A.Z01", "a.zip.001", "a.tar.zst"])
def test_other_kinds_of_archives_are_not_taken_for_recordings(name, tmp_path):
    (tmp_path / name).write_bytes(b"Rar!")
    with pytest.raises(DataError, match=r"of this kind are not read.*unpack it yourself"):
        find_recordings([tmp_path / name])


@pytest.mark.parametrize("name", PACKED)
def test_an_archive_is_read_like_the_folder_it_contains(name, tmp_path, logged):
    archive = PACKED[name](tmp_path / name)
    result = find_recordings([archive])
    assert {u.name: u.label for u in result.utterances} == {
        "Set/Set/Real/a.wav": "bonafide",
        "Set/Set/Fake/b.wav": "spoof",
    }
    assert all(Path(u.path).read_bytes() == CLIPS[u.name] for u in result.utterances)
    assert result.root == tmp_path / f"{name}.extracted"
    assert "unpacked 2 files of" in logged.text
    first = Path(result.utterances[0].path).stat().st_mtime_ns
    assert find_recordings([archive]).utterances == result.utterances
    assert Path(result.utterances[0].path).stat().st_mtime_ns == first
    assert "was already unpacked" in logged.text


def test_a_changed_archive_is_unpacked_again(tmp_path):
    archive = write_zip(tmp_path / "a.zip", CLIPS)
    archives.extract(archive)
    write_zip(archive, {"Real/new.wav": recording()})
    assert [u.name for u in find_recordings([archive]).utterances] == ["Real/new.wav"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "a.zip.extracted"]


def test_an_unrelated_folder_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "a.zip.extracted").mkdir()
    (tmp_path / "a.zip.extracted" / "mine.txt").touch()
    with pytest.raises(DataError, match="in the way"):
        archives.extract(write_zip(tmp_path / "a.zip", CLIPS))
    assert (tmp_path / "a.zip.extracted" / "mine.txt").exists()


def test_labels_and_splits_in_an_archive(tmp_path):
    meta = b"file,speaker,label\n0.wav,A,spoof\n1.wav,A,bona-fide\n"
    files = {"release_in_the_wild/meta.csv": meta}
    files |= {f"release_in_the_wild/{i}.wav": recording() for i in range(2)}
    labels = {u.name: u.label for u in find_recordings([write_zip(tmp_path / "w.zip", files)]).utterances}
    assert labels == {"0.wav": "spoof", "1.wav": "bonafide"}
    files = {f"for-2sec/for-2seconds/{s}/{c}/x.wav": recording() for s in SPLITS for c in ("fake", "real")}
    folder = find_splits(write_tar(tmp_path / "for-2sec.tar.gz", files))
    assert folder == tmp_path / "for-2sec.tar.gz.extracted/for-2sec/for-2seconds"


def test_a_zip_with_backslashes_has_folders_too(tmp_path):
    write_zip(tmp_path / "a.zip", {"Real/a.wav": recording()})
    packed = (tmp_path / "a.zip").read_bytes().replace(b"Real/a.wav", b"Real\\a.wav")
    (tmp_path / "a.zip").write_bytes(packed)
    assert find_recordings([tmp_path / "a.zip"]).utterances[0].label == "bonafide"


def as_kind(kind, target=""):
    def change(member):
        member.type, member.linkname, member.size = kind, target, 0
        return member

    return change


def write_one(kind, target="a.wav"):
    return lambda path: write_tar(path, {"x.wav": b""}, change=as_kind(kind, target))


def linking_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("Real/link.wav")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")


def encrypted_zip(path):
    write_zip(path, CLIPS)
    packed = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := packed.find(signature, at + 1)) >= 0:
            packed[at + flags] |= 1
    path.write_bytes(packed)


def cut_between_members(path) -> bytes:
    whole = write_tar(path, mode="w").read_bytes()
    return whole[: whole.index(b"Set/Set/Fake")]


def growing_without_end(path, size=200 * 2**20):
    with gzip.open(path, "wb") as packed:
        member = tarfile.TarInfo("zeros.wav")
        member.size = size
        packed.write(member.tobuf())
        for _ in range(size // 2**20):
            packed.write(bytes(2**20))
        packed.write(bytes(1024))


def endless_header(path, size=2**31):
    """Write a pax header of 2 GiB, which tarfile would read into memory whole."""
    with gzip.open(path, "wb") as packed:
        member = tarfile.TarInfo("pax")
        member.size, member.type = size, tarfile.XHDTYPE
        packed.write(member.tobuf() + bytes(2**20))


def lying_zip(path):
    """Write a zip that announces ten bytes and contains more."""
    write_zip(path, {"Real/a.wav": bytes(10**6)}, compression=zipfile.ZIP_DEFLATED)
    packed = path.read_bytes()
    path.write_bytes(packed.replace((10**6).to_bytes(4, "little"), (10).to_bytes(4, "little")))


def backwards(path):
    """Write a pax header that gives its file a negative size: tarfile would read it for ever."""
    record = b"14 size=-2048\n"
    header = tarfile.TarInfo("pax")
    header.size, header.type = len(record), tarfile.XHDTYPE
    file = tarfile.TarInfo("a.bin")
    path.write_bytes(header.tobuf() + record.ljust(512, b"\0") + file.tobuf() + bytes(512))


def global_headers(path):
    """Write many global headers, all of which tarfile would keep."""
    with gzip.open(path, "wb") as packed:
        for i in range(3000):
            record = f"65536 k{i}=".encode().ljust(65535, b"x") + b"\n"
            header = tarfile.TarInfo("g")
            header.size, header.type = len(record), tarfile.XGLTYPE
            packed.write(header.tobuf() + record)


HOSTILE = {
    "backwards.tar": (backwards, "leads backwards"),
    "two.tar": (lambda p: p.write_bytes(2 * write_tar(p, mode="w").read_bytes()), "data after its end"),
    "trailer.tar.gz": (lambda p: p.write_bytes(write_tar(p).read_bytes()[:-8]), "is damaged"),
    "deep.tar.gz": (lambda p: write_tar(p, {"d/" * 1500 + "a.wav": b"x"}), "nested too deeply"),
    "parent.zip": (lambda p: write_zip(p, {"Real/../../out.wav": b"x"}), "leads outside"),
    "absolute.zip": (lambda p: write_zip(p, {"/tmp/out.wav": b"x"}), "leads outside"),
    "backslash.zip": (lambda p: write_zip(p, {"..\\out.wav": b"x"}), "leads outside"),
    "drive.zip": (lambda p: write_zip(p, {"C:\\out.wav": b"x"}), "leads outside"),
    "link.zip": (linking_zip, "link or a device"),
    "encrypted.zip": (encrypted_zip, "is encrypted"),
    "lying.zip": (lying_zip, "is damaged"),
    "parent.tar.gz": (lambda p: write_tar(p, {"../out.wav": b"x"}), "leads outside"),
    "absolute.tar.gz": (lambda p: write_tar(p, {"/tmp/out.wav": b"x"}), "leads outside"),
    "symbolic.tar.gz": (write_one(tarfile.SYMTYPE, "/etc/passwd"), "link or a device"),
    "inside.tar.gz": (write_one(tarfile.SYMTYPE, "Real"), "link or a device"),
    "hard.tar.gz": (write_one(tarfile.LNKTYPE, "../../etc/passwd"), "link or a device"),
    "device.tar.gz": (write_one(tarfile.CHRTYPE), "link or a device"),
    "pipe.tar.gz": (write_one(tarfile.FIFOTYPE), "link or a device"),
    "bomb.tar.gz": (growing_without_end, "unpacks to more than"),
    "header.tar.gz": (endless_header, "a header of"),
    "twice.tar.gz": (lambda p: write_tar(p, {"a.wav": b"x", "./a.wav": b"y"}), "twice"),
    "case.txt.zip": (lambda p: p.write_bytes(b"PK this is no archive"), "is damaged"),
    "cut.tar.gz": (lambda p: p.write_bytes(write_tar(p).read_bytes()[:200]), "is damaged"),
    "cut.tar": (lambda p: p.write_bytes(write_tar(p, mode="w").read_bytes()[:2000]), "is damaged"),
    "cut_between.tar": (lambda p: p.write_bytes(cut_between_members(p)), "ends too early"),
    "cut_header.tar": (lambda p: p.write_bytes(cut_between_members(p) + b"Real"), "ends too early"),
    "empty.zip": (lambda p: write_zip(p, {"notes.pdf": b"x"}), "contains no recordings"),
    "nothing.tar": (lambda p: p.write_bytes(b""), "is damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(name, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 50 * 2**20)
    make, words = HOSTILE[name]
    folder = tmp_path / "in"
    folder.mkdir()
    make(folder / name)
    with pytest.raises(DataError, match=words) as caught:
        archives.extract(folder / name)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", name]


def test_a_broken_archive_does_not_remove_what_was_unpacked_before(tmp_path):
    archive = write_zip(tmp_path / "a.zip", CLIPS)
    folder = archives.extract(archive)
    archive.write_bytes(b"a broken download")
    with pytest.raises(DataError, match="is damaged"):
        archives.extract(archive)
    assert (folder / "Set/Set/Real/a.wav").is_file()


def test_several_processes_at_once_make_one_complete_folder(tmp_path):
    clip = recording()
    archive = write_zip(tmp_path / "a.zip", {f"Real/{i}.wav": clip for i in range(1000)})
    code = (
        "import sys; from pathlib import Path; from antispoofing.data.archives import extract; "
        "extract(Path(sys.argv[1]))"
    )
    root = Path(__file__).parents[1]
    running = [subprocess.Popen([sys.executable, "-c", code, archive], cwd=root) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(list((tmp_path / "a.zip.extracted" / "Real").iterdir())) == 1000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "a.zip.extracted"]


def test_an_ordinary_archive_is_not_taken_for_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 0)
    clip = {"Real/a.wav": recording() + bytes(20000)}  # much of it compresses
    assert archives.extract(write_zip(tmp_path / "a.zip", clip, compression=zipfile.ZIP_DEFLATED)).is_dir()


def test_a_list_in_an_archive_may_not_name_files_outside(tmp_path):
    soundfile.write(tmp_path / "secret.wav", np.zeros(100), 16000)
    for name in (str(tmp_path / "secret.wav"), "../secret.wav", r"..\secret.wav", "$ROOT/../secret.wav"):
        packed = {"metadata.csv": f"file_name,label\n{name},real\n".encode(), "a.wav": recording()}
        with pytest.raises(DataError, match=r"its list of labels names .*secret.wav, outside"):
            find_recordings([write_zip(tmp_path / "l.zip", packed)])
    packed = {"utt2lab": b"a real\n", "wav.scp": b"a ../secret.wav\n", "a.wav": recording()}
    with pytest.raises(DataError, match=r"its list of labels names .*secret.wav, outside"):
        find_recordings([write_zip(tmp_path / "kaldi.zip", packed)])


@pytest.mark.parametrize(
    "lists",
    [
        {
            "metadata.jsonl": b'{"file_name": "a.wav", "label": "real"}\n'
            b'{"file_name": "b.wav", "label": "fake"}\n'
        },
        {"utt2lab": b"1 real\n2 fake\n", "wav.scp": b"1 a.wav\n2 b.wav\n"},
    ],
)
def test_lists_of_all_kinds_are_unpacked(lists, tmp_path):
    packed = lists | {"a.wav": recording(), "b.wav": recording()}
    found = find_recordings([write_zip(tmp_path / "l.zip", packed)]).utterances
    assert {u.name: u.label for u in found} == {"a.wav": "bonafide", "b.wav": "spoof"}


def test_the_recordings_of_a_list_may_be_in_an_archive(tmp_path):
    (tmp_path / "l.csv").write_text("path,label\nSet/Set/Real/a.wav,real\n")
    result = find_recordings([tmp_path / "l.csv"], root=write_tar(tmp_path / "a.tgz"))
    assert [u.name for u in result.utterances] == ["Set/Set/Real/a.wav"]


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_FILES", 1)
    with pytest.raises(DataError, match="more than 1 file,"):
        archives.extract(write_zip(tmp_path / "a.zip", CLIPS))


def test_damage_anywhere_is_one_line(tmp_path):
    rng = np.random.default_rng(0)
    noise = {name: rng.bytes(30000) for name in ("a.wav", "b.wav")}
    modes = {"a.tar": "w", "a.tar.gz": "w:gz", "a.tar.bz2": "w:bz2", "a.tar.xz": "w:xz"}
    for name in ("a.zip", *modes):
        path = (
            write_tar(tmp_path / name, noise, modes[name])
            if name in modes
            else write_zip(tmp_path / name, noise)
        )
        whole = path.read_bytes()
        for _ in range(40):
            content = bytearray(whole)
            for position in rng.integers(0, len(content), 4):
                content[position] = rng.integers(256)
            (tmp_path / name).write_bytes(content)
            try:
                folder = archives.extract(tmp_path / name)
            except DataError as error:
                assert "\n" not in str(error)
                assert name in str(error)
            else:
                if name != "a.tar":  # a plain tar has no checksum of its content
                    assert all(p.read_bytes() == noise[p.name] for p in folder.rglob("*.wav"))
                shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="only Unix can limit the address space")
def test_memory_use_stays_small(tmp_path):
    """The bombs again, in a process that has too little memory for them."""
    growing_without_end(tmp_path / "bomb.tar.gz", 2**31)
    endless_header(tmp_path / "header.tar.gz")
    global_headers(tmp_path / "global.tar.gz")
    code = (
        "import resource, sys, pathlib\n"
        "from antispoofing import errors\n"
        "from antispoofing.data import archives\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "for name in sys.argv[1:]:\n"
        "    try: archives.extract(pathlib.Path(name))\n"
        "    except errors.DataError as error: print(error)\n"
    )
    files = [str(tmp_path / name) for name in ("bomb.tar.gz", "header.tar.gz", "global.tar.gz")]
    done = subprocess.run(
        [sys.executable, "-c", code, *files],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # each thread reserves address space
    )
    assert done.returncode == 0, done.stderr
    assert "unpacks to more than" in done.stdout
    assert "a header of" in done.stdout
    assert done.stdout.count("global.tar.gz") == 1
