"""What the entry scripts have in common: what they run on, and one detector over one set of recordings.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from antispoofing import distributed
from antispoofing.classes import FAKE, REAL
from antispoofing.commands.audit import print_audit
from antispoofing.commands.options import ScoringOptions
from antispoofing.data.duplicates import DUPLICATES
from antispoofing.data.labels import LABEL_WORDS
from antispoofing.data.recordings import Recordings, Utterance, find_recordings
from antispoofing.errors import CheckpointError, DataError
from antispoofing.files import remove
from antispoofing.project import SAMPLES, Invocation
from antispoofing.published import DETECTOR_NAMES, HUB
from antispoofing.report import results, screen
from antispoofing.report.summary import summarise
from antispoofing.scoring.scored import Scored
from antispoofing.text import printable
from antispoofing.training.history import FINAL

if TYPE_CHECKING:
    from model import Detector

CUSTOM = Path("Dataset_Speech_Assignment")
FAKE_OR_REAL = Path("for-2seconds")
FINE_TUNED = Path("results/for", FINAL)

STAND_IN = SAMPLES / "detector.safetensors"  # small; its provenance says "stand_in"

NO_CHECKPOINT = (
    f"no checkpoint: none of {', '.join(DETECTOR_NAMES)} is in this folder. Fetch one with python -m "
    "antispoofing download LA_model.pth (or Best_LA_model_for_DF.pth), or name a file with --checkpoint"
)
NO_FAKE_OR_REAL = (
    f"no data: there is no {FAKE_OR_REAL}/ in this folder. --download fetches Fake-or-Real from York "
    "University's www.eecs.yorku.ca/~bil/Datasets/for-2sec.tar.gz; --data names its folder or archive"
)
NO_CUSTOM = (
    f"no data: there is no {CUSTOM}/ in this folder. Unzip the assignment's data set here, or name "
    "a folder with real and fake subfolders, or any recordings, with --data"
)


def known_checkpoints() -> list[Path]:
    """Return the published detectors in the current folder, in the order they are reported."""
    return [Path(name) for name in DETECTOR_NAMES if Path(name).is_file()]


def choose(
    data: Sequence[str | Path], checkpoints: Sequence[Path], default: Path, samples: Path, no_data: str
) -> tuple[Sequence[str | Path], Sequence[Path]]:
    """The data and detector files to use: those named, else those in the current folder.

    Where neither data nor a detector is named or there, it is the bundled samples and the bundled
    stand-in detector, and that is said.

    Args:
        data, checkpoints: as named on the command line; empty where they are not.
        default: the data set's usual name.
        samples: the bundled folder that stands in for it.
        no_data: what to say when only the data are missing.

    Raises:
        DataError, CheckpointError: only the one is missing.
    """
    data = data or ([default] if default.exists() else [])
    checkpoints = checkpoints or known_checkpoints()
    if not data and not checkpoints:
        print_demonstration(f"Neither {default}/ nor a published detector is in this folder")
        return [_from_here(samples)], [_from_here(STAND_IN)]
    if not checkpoints:
        raise CheckpointError(NO_CHECKPOINT)
    if not data:
        raise DataError(no_data)
    return data, checkpoints


def fetched(checkpoint: Path) -> Path:
    """Return the file itself; of `hub:...`, where it was fetched to. Raises DownloadError."""
    if not str(checkpoint).startswith(HUB):
        return checkpoint
    from antispoofing.data import download  # and all that fetching needs: half a second

    return download.resolve(checkpoint)


def load(checkpoint: str | Path, options: ScoringOptions) -> Detector:
    """Load a detector as the options want it, ready to score, see `load_detector` and `for_scoring`."""
    from antispoofing.detectors.loading import load_detector
    from antispoofing.detectors.packed import for_scoring

    detector = load_detector(
        checkpoint, device=options.device, precision=options.precision, engine=options.engine
    )
    return for_scoring(detector)


def _from_here(path: Path) -> Path:
    """Relative to the current folder where it lies below: short to read, the same on every machine."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def print_demonstration(why: str) -> None:
    """Print that what follows comes from the samples and from the stand-in detector."""
    print(
        f"{why}, so this is a demonstration:\n"
        "the bundled sample recordings, and a small STAND-IN DETECTOR in place of XLS-R 300M. Its figures\n"
        "say nothing about the published detectors. samples/README.md tells what both are.\n"
    )


def find(data: Sequence[str | Path], root: Path | None = None, phase: str | None = None) -> Recordings:
    """`find_recordings`, with a few words on what was found.

    Raises:
        DataError: as there, or all recordings have one and the same label.
    """
    found = find_recordings(data, root, phase)
    for note in found.shown_notes():
        print(printable(note))
    counts = Counter(u.label for u in found.utterances)
    print(f"{len(found.utterances)} recordings: {counts['bonafide']} real, {counts['spoof']} fake", end="")
    print(f", {counts['']} without a label" if counts[""] else "")
    if found.ignored:
        suffixes = printable(", ".join(sorted({p.suffix or p.name for p in map(Path, found.ignored)})))
        print(f"{len(found.ignored)} other files are not recordings ({suffixes}) and were left out.")
    if counts[""] == len(found.utterances) and any(Path(path).is_dir() for path in data):
        print(f"No folder in {found.root} is called {', '.join(LABEL_WORDS)}: there are no labels.")
        print("If a list has them, name the list itself as --data.")
    if not counts[""] and not (counts[REAL.label] and counts[FAKE.label]):
        empty, full = (REAL.word, FAKE.word) if counts[REAL.label] == 0 else (FAKE.word, REAL.word)
        raise DataError(
            f"there are {full} recordings but no {empty} ones, so no AUC or EER; to score them without "
            f"labels, give the {full} folder itself as --data"
        )
    return found


def must_agree(options: ScoringOptions, found: Recordings, offset: float = 0.0) -> dict[str, object]:
    """Return what all processes of a group must have alike, for each to score its share of one list."""
    return {
        "--batch-size": options.batch_size,
        "--offset": offset,
        "--precision": options.precision,
        "--frontend": options.engine,
        "list of recordings": f"{len(found.utterances)}, sha256 {found.sha256()[:12]}",
    }


def identity(detector: Detector) -> tuple[str, str, str]:
    """What a detector's scores depend on, and the sharing out: the same on all processes of a group."""
    return detector.sha256, detector.precision, detector.device.type


def audit(splits: Mapping[str, Sequence[Utterance]], folder: Path, is_wanted: bool = True) -> None:
    """Look for the same audio twice, and list it among the results.

    Args:
        splits: as for `duplicates.find_duplicates`.
        folder: for the listing; made where it is not there.
        is_wanted: False to remove an earlier run's listing only.
    """
    remove(folder, [DUPLICATES])
    if is_wanted:
        folder.mkdir(parents=True, exist_ok=True)
        print_audit(splits, folder / DUPLICATES)


def print_analysis(folder: Path, figures: str, words: Sequence[str]) -> None:
    """Print figures and what is made of them, and write both to analysis.md.

    Args:
        words: Markdown, in blocks set apart by empty lines.
    """
    text = screen.analysis_text(words)
    print(f"\n{figures}\n\n{text}")
    results.write_analysis(folder, figures, text)


def evaluate(
    name: str,
    detector: Detector,
    found: Recordings,
    folder: Path,
    options: ScoringOptions,
    invocation: Invocation,
    *,
    threshold: float | None = None,
    offset: float = 0.0,
) -> tuple[Scored, dict] | None:
    """Score with one detector, write its results folder, name what could not be scored.

    Args:
        name: of the detector in what is printed and drawn.
        folder: for the results; made where it is not there.
        threshold: one chosen on other data; None for the network's own decision.
        offset: where in each recording its clip begins, in seconds.

    Returns:
        What `score_recordings` and `summarise` give; of the processes of a group, on the main one.

    Raises:
        DataError: nothing could be scored, or nothing of one class where all recordings have labels.
    """
    from antispoofing.scoring.score import score_recordings

    if distributed.is_main():
        folder.mkdir(parents=True, exist_ok=True)  # before the work, not after
    processes = f", in {distributed.size()} processes" if distributed.size() > 1 else ""
    print(f"\nScoring with {name} on {detector.device.type}, {detector.precision}{processes}")
    scored = score_recordings(
        detector, found.utterances, batch_size=options.batch_size, workers=options.workers, offset=offset
    )
    if not distributed.is_main():
        return None
    summary = summarise(scored, threshold=threshold, seed=options.seed)
    about = {
        "data_root": str(found.root),
        "data_sha256": found.sha256(),
        "offset_seconds": offset,
        "detector": {"name": name} | detector.describe(),
    }
    verdicts = scored.verdicts(threshold)
    results.write_results(folder, scored, summary, verdicts, about, invocation, title=name)
    if scored.failures:
        print(screen.failures_list(scored))
    counts = summary["counts"]
    if counts["scored"] == 0:
        raise DataError(f"none of the {counts['files']} recordings could be scored")
    for label, count in (("real", counts["bonafide_scored"]), ("fake", counts["spoof_scored"])):
        if all(u.label for u in found.utterances) and count == 0:
            raise DataError(f"none of the {label} recordings could be scored, so no AUC or EER")
    return scored, summary
