"""What the scripts share: finding data and detectors, and scoring one data set with one detector.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from antispoofing import distributed
from antispoofing.classes import FAKE, REAL
from antispoofing.commands.audit import print_audit
from antispoofing.commands.options import ScoringOptions
from antispoofing.data.duplicates import DUPLICATES
from antispoofing.data.labels import MOST_PROBLEMS, USUAL, Reading
from antispoofing.data.recordings import Recordings, Utterance, find_recordings
from antispoofing.data.words import SHORT_LIST
from antispoofing.errors import CheckpointError, DataError
from antispoofing.files import check_writable, remove
from antispoofing.progress import is_quiet, warn
from antispoofing.project import SAMPLES, Invocation
from antispoofing.published import CONFIG, DETECTOR_NAMES, HUB, PUBLISHED, WEIGHTS
from antispoofing.report import results, screen
from antispoofing.report.detector_card import family_notes, name_warning
from antispoofing.report.summary import summarise
from antispoofing.scoring.clusters import find_clusters
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.scored import Scored
from antispoofing.text import counted, printable
from antispoofing.training.history import FINAL

if TYPE_CHECKING:
    from model import Detector

CUSTOM = Path("Dataset_Speech_Assignment")
FAKE_OR_REAL = Path("for-2seconds")
DOWNLOADED = Path(f"{PUBLISHED['for-2sec'].name}.extracted")  # where the download unpacks Fake-or-Real
FINE_TUNED = Path("results/for", FINAL)

STAND_IN = SAMPLES / "detector.safetensors"

NO_CHECKPOINT = (
    f"no checkpoint: none of {', '.join(DETECTOR_NAMES)} is in this folder. Fetch one with python -m "
    "antispoofing download LA_model.pth (or Best_LA_model_for_DF.pth), or name a file with --checkpoint"
)
NO_FAKE_OR_REAL = (
    f"no data: there is no {FAKE_OR_REAL}/ in this folder. Fetch Fake-or-Real from York University "
    "(www.eecs.yorku.ca/~bil/Datasets/for-2sec.tar.gz) with --download, or name its folder or archive with "
    "--data"
)
_NO_CUSTOM = (
    f"no data: there is no {CUSTOM}/ in this folder. Unzip the assignment's data set here, or name "
    "a folder with real and fake subfolders, or %s, with --data"
)
NO_CUSTOM, NO_LABELLED_CUSTOM = _NO_CUSTOM % "any recordings", _NO_CUSTOM % "a list of labels"


class Evaluation(NamedTuple):
    """The outcome of one detector on one set of recordings.

    Attributes:
        scored: From `score_recordings`.
        summary: From `summarise`.
        rule: How the scores become verdicts.
    """

    scored: Scored
    summary: dict
    rule: Rule


def known_checkpoints() -> list[Path]:
    """Return the published detectors in the current folder, in the order in which they are reported."""
    return [Path(name) for name in DETECTOR_NAMES if Path(name).is_file()]


def fake_or_real() -> Path:
    """Return where Fake-or-Real is: under its usual name, or where only the download has left it."""
    return DOWNLOADED if DOWNLOADED.is_dir() and not FAKE_OR_REAL.exists() else FAKE_OR_REAL


def choose(
    data: Sequence[str | Path], checkpoints: Sequence[Path], default: Path, samples: Path, no_data: str
) -> tuple[Sequence[str | Path], Sequence[Path]]:
    """Return the data and detectors to use: those named, else those in the current folder.

    If there are neither data nor a detector, the bundled samples and the bundled stand-in detector are used,
    and a notice is printed.

    Args:
        data: The data named on the command line; empty if none are.
        checkpoints: The detectors named on the command line; empty if none are.
        default: The usual name of the data set.
        samples: The bundled folder that stands in for it.
        no_data: The error message if only the data are missing.

    Raises:
        CheckpointError: If only the detector is missing.
        DataError: If only the data are missing.
    """
    data = data or ([default] if default.exists() else [])
    checkpoints = checkpoints or known_checkpoints()
    if not data and not checkpoints:
        print_demonstration(f"Neither {default}/ nor a published detector is in this folder")
        return [_relative(samples)], [_relative(STAND_IN)]
    if not checkpoints:
        raise CheckpointError(NO_CHECKPOINT)
    if not data:
        raise DataError(no_data)
    return data, checkpoints


def must_exist(data: Iterable[str | Path]) -> None:
    """Raise a DataError if data do not exist, before anything is downloaded or loaded."""
    for path in data:
        if not Path(path).exists():
            raise DataError(f"{path}: no such file or folder")


def fetched(checkpoint: Path) -> Path:
    """Return the path of a detector's file; one that is named as `hub:...` is downloaded first.

    Raises:
        DownloadError: If it cannot be downloaded.
    """
    if not str(checkpoint).startswith(HUB):
        return checkpoint
    from antispoofing.data import download  # takes half a second to import

    return download.resolve(checkpoint)


def prepare_output(output: Path, folders: Iterable[str] = (), what: str = "--output") -> None:
    """Make the output folder and check that it can be written to, before any work is done.

    Args:
        output: The folder.
        folders: The names of folders that will be made in it.
        what: What to call it in errors.

    Raises:
        DataError: If it cannot, or if something else has such a name.
    """
    if not distributed.is_main():  # the others write nothing
        return
    try:
        check_writable(output)
    except OSError as error:  # whose path may be that of the temporary file
        raise DataError(f"{what} {output}: {error.strerror or error}") from error
    for name in folders:
        if (output / name).exists() and not (output / name).is_dir():
            raise DataError(f"{what} {output}: {name} in it is in the way: move it away")


def print_next(words: str, script: str, checkpoint: Path | None) -> None:
    """Print the command for the next step, with its detector if that is not one that the script finds."""
    named = f" --checkpoint {shlex.quote(str(checkpoint))}" if checkpoint else ""
    print(printable(f"Next, {words}: python {script}{named}"))


def check(checkpoint: str | Path, options: ScoringOptions) -> Detector:
    """Check a detector in a moment, before any work is done; return it without its weights.

    Raises:
        UserError: As in `load`, except for the values of weights.
    """
    from antispoofing.detectors.loading import check_detector

    return check_detector(
        checkpoint, device=options.device, precision=options.precision, engine=options.engine
    )


def load(checkpoint: str | Path, options: ScoringOptions) -> Detector:
    """Load a detector, ready to score; its device has been checked by `resolve_device`.

    Raises:
        CheckpointError: If the file cannot be used, see `load_detector`.
        DeviceError: If the device does not support the precision.
        FairseqError: If fairseq is asked for and cannot be imported.
    """
    from antispoofing.detectors.loading import for_scoring, load_detector

    detector = load_detector(
        checkpoint, device=options.device, precision=options.precision, engine=options.engine
    )
    return for_scoring(detector)


def digest(detector: Detector) -> str:
    """Return the SHA-256 of the file that a detector was loaded from."""
    assert detector.sha256 is not None  # set by load_detector
    return detector.sha256


def distinct_name(detector: Detector, taken: Collection[str], name: str | None = None) -> str:
    """Return a name for a detector, with the start of its file's SHA-256 if the plain name is taken.

    Args:
        detector: A detector that was loaded from a file.
        taken: The names of other detectors.
        name: The plain name; None for that of the file.
    """
    assert detector.path is not None  # set by load_detector
    if name is None:
        name = plain_name(detector.path)
    return f"{name}-{digest(detector)[:8]}" if name in taken else name


def plain_name(path: Path) -> str:
    """Return a detector's name by its file; where all have the same one, by the folder or repository."""
    if path.name not in WEIGHTS:
        return path.stem
    folder = path.absolute().parent  # not resolved, since a cache's files are links
    cache = folder.parent.parent.name
    if cache.startswith("models--"):  # Hugging Face's cache: models--owner--repo/snapshots/commit/
        return cache.rpartition("--")[2]
    return (folder.resolve().name if (folder / CONFIG).is_file() else "") or path.stem


def _relative(path: Path) -> Path:
    """Return a path relative to the current folder if it lies below it, so that it is short when printed."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def print_demonstration(reason: str) -> None:
    """Print that the bundled samples and the stand-in detector are used, and why."""
    print(
        f"{reason}, so this is a demonstration\n"
        "with the bundled sample recordings and a small STAND-IN DETECTOR in place of XLS-R 300M.\n"
        "Its figures say nothing about the published detectors. samples/README.md describes both.\n"
    )


def find(
    data: Sequence[str | Path],
    root: Path | None = None,
    phase: str | None = None,
    reading: Reading = USUAL,
    *,
    must_have_labels: bool = False,
) -> Recordings:
    """Find recordings and print what was found.

    Args:
        data: Folders, lists of labels, archives or recordings.
        root: The folder of the recordings that a list of labels names; None to look for them beside it.
        phase: The phase of a data set with phases; None for the default one.
        reading: What the user says of labels and lists.
        must_have_labels: Whether there must be recordings labelled real and others labelled fake.

    Raises:
        DataError: If `find_recordings` fails, all recordings have the same label, or one is missing.
    """
    found = find_recordings(data, root, phase, reading)
    for note in found.shown_notes():
        print(printable(note))
    n, counts = len(found.utterances), Counter(u.label for u in found.utterances)
    unlabelled = f", {counts['']} without a label" if counts[""] else ""
    print(f"{counted(n, 'recording')}: {counts[REAL.label]} real, {counts[FAKE.label]} fake{unlabelled}")
    if found.ignored:
        suffixes = printable(", ".join(sorted({p.suffix or p.name for p in map(Path, found.ignored)})))
        print(f"Files left out because they are not recordings: {len(found.ignored)} ({suffixes}).")
    if counts[""] == n and any(Path(path).is_dir() for path in data):
        print(
            f"There are no labels, so there is no AUC: no folder in {found.root} is called {SHORT_LIST}, ..."
        )
        print(
            "Say what your folders are called, with --real-words and --fake-words; or name a list of labels."
        )
    elif 0 < counts[""] < n:
        warn(printable(_unlabelled(found)))
    has_both = bool(counts[REAL.label] and counts[FAKE.label])
    if must_have_labels and not has_both:
        raise DataError(
            "the recordings must have labels, both real and fake: name a folder with both, or a list of "
            "labels, with --data"
        )
    if not counts[""] and not has_both:
        empty, full = (REAL.word, FAKE.word) if counts[REAL.label] == 0 else (FAKE.word, REAL.word)
        raise DataError(
            f"there are {full} recordings but no {empty} ones, so there is no AUC or EER; to score them "
            f"without labels, name the {full} folder itself with --data"
        )
    return found


def _unlabelled(found: Recordings) -> str:
    """Name the folders of recordings without a label, among others that have one."""
    folders = Counter(u.name.rpartition("/")[0] or "." for u in found.utterances if not u.label)
    shown = ", ".join(f"{folder} ({n})" for folder, n in folders.most_common(MOST_PROBLEMS))
    left = len(folders) - MOST_PROBLEMS
    rest = f" and {left} more folders" if left > 0 else ""
    return (
        f"No label, and so in no figure: {shown}{rest}. Say what they are, with --real-words or --fake-words "
        "and the names of folders"
    )


def must_agree(options: ScoringOptions, found: Recordings, offset: float = 0.0) -> dict[str, object]:
    """Return what all processes of a group must agree on to share one list of recordings, by name."""
    return {
        "--batch-size": options.batch_size,
        "--offset": offset,
        "--precision": options.precision,
        "--frontend": options.engine,
        "list of recordings": f"{len(found.utterances)}, sha256 {found.sha256()[:12]}",
    }


def identity(detector: Detector) -> tuple[str, str, str]:
    """Return what all processes of a group must agree on: a detector's file, precision and kind of device."""
    return digest(detector), detector.precision, detector.device.type


def audit(splits: Mapping[str, Sequence[Utterance]], folder: Path, is_wanted: bool = True) -> None:
    """Search recordings for duplicates and list these among the results.

    Args:
        splits: As for `duplicates.find_duplicates`.
        folder: Where to write the listing; created if it does not exist.
        is_wanted: False to only remove the listing of an earlier run.
    """
    remove(folder, [DUPLICATES])
    if is_wanted:
        folder.mkdir(parents=True, exist_ok=True)
        is_single = sum(map(len, splits.values())) == 1  # a single recording cannot have a duplicate
        print_audit(splits, folder / DUPLICATES, is_silent=is_single)


def print_analysis(folder: Path, figures: str, words: Sequence[str]) -> None:
    """Print figures and their analysis, and write both to analysis.md.

    Args:
        folder: An existing folder.
        figures: A table, as text.
        words: Markdown, in blocks separated by empty lines.
    """
    text = screen.analysis_text(words)
    print(f"\n{figures}\n\n{text}")
    results.write_analysis(folder, figures, text)


def evaluate(
    name: str,
    detector: Detector,
    rule: Rule,
    found: Recordings,
    folder: Path,
    options: ScoringOptions,
    invocation: Invocation,
    *,
    threshold: float | None = None,
    offset: float = 0.0,
    pictures: Sequence[str] = ("png",),
    has_timelines: bool = False,
) -> Evaluation | None:
    """Score recordings with one detector, write its results, and print what could not be scored.

    Args:
        name: The detector's name in tables and plots.
        detector: In evaluation mode.
        rule: How its scores become verdicts.
        found: The recordings.
        folder: Where to write the results; created if it does not exist.
        options: How to score.
        invocation: Recorded with the results.
        threshold: A threshold chosen on other data, for accuracy and confusion counts; None for neither.
        offset: Where in each recording its clip begins, in seconds.
        pictures: The file formats of the pictures.
        has_timelines: Whether timelines of the whole recordings follow.

    Returns:
        The outcome; in a group of processes only on the main one, and None on the others.

    Raises:
        DataError: If no recording could be scored, or all have labels and none of one class could be.
    """
    from antispoofing.scoring.score import score_recordings

    if distributed.is_main():
        folder.mkdir(parents=True, exist_ok=True)  # fail before the work, not after it
    processes = f", in {distributed.size()} processes" if distributed.size() > 1 else ""
    if distributed.is_main() and (warning := name_warning(detector)):
        warn(f"\n{printable(warning)}")
    how = f"{detector.device.type}, {detector.precision}{processes}"
    print(f'\nScoring with detector "{printable(name)}" on {how}')
    if distributed.is_main():
        for note in family_notes(detector):
            print(note)
    scored = score_recordings(
        detector, found.utterances, batch_size=options.batch_size, workers=options.workers, offset=offset
    )
    if not distributed.is_main():
        return None
    summary = summarise(scored, find_clusters(found.utterances), threshold=threshold, rule=rule)
    about = {
        "data_root": str(found.root),
        "data_sha256": found.sha256(),
        "offset_seconds": offset,
        "detector": {"name": name} | detector.describe(),
        "verdicts": rule.describe(),
    }
    results.write_results(folder, scored, summary, rule, about, invocation, title=name, formats=pictures)
    for line in screen.heard_lines(scored, has_timelines):
        warn(line)
    if scored.failures:
        warn(screen.failures_list(scored))
    if summary.get("reversed") and is_quiet():  # the figures, which are not printed, have this warning, too
        warn(screen.reversal_warning(name, summary))
    counts = summary["counts"]
    if counts["scored"] == 0:
        raise DataError(f"none of the {counts['files']} recordings could be scored")
    for label, count in (("real", counts["bonafide_scored"]), ("fake", counts["spoof_scored"])):
        if all(u.label for u in found.utterances) and count == 0:
            raise DataError(f"none of the {label} recordings could be scored, so there is no AUC or EER")
    return Evaluation(scored, summary, rule)
