"""Speech deepfake detection with XLS-R and AASIST, from Python.

    from antispoofing import find_recordings, for_scoring, load_detector, score_recordings

    detector = for_scoring(load_detector("LA_model.pth"))
    scored = score_recordings(detector, find_recordings(["my_folder"]).utterances)
    scored.scores  # [n], higher = more likely real

Each subpackage imports only from itself and from those above it in this list; data/ and detectors/ do not
import from each other, nor do web/ and commands/. All of them may import model.py, data_utils.py and the
modules of this folder.

    data/       finding recordings and their labels
    detectors/  loading and saving detectors
    scoring/    recordings -> scores -> verdicts
    training/   fine-tuning a detector
    report/     what the scores mean: figures, tables, pictures, words
    web/        the web page
    commands/   what the command lines share

The names in __all__ are the stable interface; each is imported when it is first used.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "find_recordings": "antispoofing.data.recordings",
    "load_detector": "antispoofing.detectors.loading",
    "load_front_end": "antispoofing.detectors.loading",
    "save_detector": "antispoofing.detectors.loading",
    "export_official": "antispoofing.detectors.loading",
    "for_scoring": "antispoofing.detectors.loading",
    "score_recordings": "antispoofing.scoring.score",
    "score_waves": "antispoofing.scoring.score",
    "score_windows": "antispoofing.scoring.score",
    "Rule": "antispoofing.scoring.decision",
    "compute_metrics": "antispoofing.metrics",
    "intervals": "antispoofing.uncertainty",
    "load_audio": "data_utils",
    "pad": "data_utils",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
