"""The data sets that can be read as published: where their lists and recordings are, and what labels them.

To add one, add an entry to SETS, a test, and run the tests of the documentation with --write-docs. What an
entry says holds for its own lists and folders alone; words that label recordings anywhere are in `words.py`,
and lists with the usual columns need no entry at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from antispoofing.data.words import FAKE, REAL


@dataclass(frozen=True)
class DataSet:
    """A data set as published.

    Attributes:
        name: Its name.
        layout: What is where, and what labels it, for the documentation.
        source: Where it is described or can be had.
        licence: Its licence, where that is known here.
        lists: Where its lists of labels are, as patterns relative to its folder. If it has any, only what is
            in them counts.
        columns: The columns of lists without a header, by their number: "speaker utterance - attack label".
        header: The columns of lists with one, in the spelling of `words.plain`, and what those mean that have
            other names than usual ("utterance", "label", ...); a list of this set has all of them.
        label_by: Where no column of a list holds labels, a column that tells them, and the label by regular
            expressions for its values; another value is an error.
        audio: Where the recordings of a list may be, as patterns relative to the list's folder; "{stem}" is
            the list's name without suffix.
        folders: Regular expressions for paths of recordings relative to its folder or one above, and the
            label of what they match; named groups become columns.
        is_vocoded: Whether its fakes are people's recordings that a vocoder or codec has synthesised anew.
    """

    name: str
    layout: str
    source: str
    licence: str = "see there"
    lists: tuple[str, ...] = ()
    columns: Mapping[int, str] = field(default_factory=dict)
    header: Mapping[str, str] = field(default_factory=dict)
    label_by: tuple[str, Mapping[str, str]] | None = None
    audio: tuple[str, ...] = ()
    folders: tuple[tuple[str, str], ...] = ()
    is_vocoded: bool = False


_SPLIT = r"(?P<split>train|training|dev|development|valid|validation|test|testing|eval|evaluation)"

SETS = (
    DataSet(
        "In-the-Wild",
        "`meta.csv` beside the recordings",
        "https://huggingface.co/datasets/mueller91/In-The-Wild",
        "CC BY-SA 4.0",
        lists=("meta.csv",),
    ),
    DataSet(
        "ASVspoof 2019 LA, PA",
        "`ASVspoof2019_*_cm_protocols/` beside `ASVspoof2019_*/flac/`",
        "https://datashare.ed.ac.uk/handle/10283/3336",
        lists=("ASVspoof2019.*.cm.*.txt", "*/ASVspoof2019.*.cm.*.txt"),
        columns={5: "speaker utterance environment attack label"},
        audio=("*/flac", "../*/flac"),
    ),
    *(
        DataSet(
            f"ASVspoof 2021 {track}",
            f"`keys/{track}/CM/trial_metadata.txt`, `ASVspoof2021_{track}_eval/flac/`"
            + (", also in several parts" if track == "DF" else ""),
            f"https://zenodo.org/records/{record}",
            lists=(
                "trial_metadata.txt",
                "CM/trial_metadata.txt",
                "*/CM/trial_metadata.txt",
                "*/*/CM/trial_metadata.txt",
                "*/keys/*/CM/trial_metadata.txt",
            ),
            columns={len(columns.split()): columns},
        )
        for track, record, columns in (
            ("LA", 4837263, "speaker utterance codec transmission attack label trim phase"),
            (
                "PA",
                4834716,
                "speaker utterance environment microphone distance room asv_distance source playback label "
                "trim phase",
            ),
            (
                "DF",
                4835108,
                "speaker utterance codec source attack label trim phase vocoder task team pair language",
            ),
        )
    ),
    DataSet(
        "ASVspoof 5",
        "`ASVspoof5.*.tsv` beside `flac_T/`, `flac_D/`, `flac_E_eval/`",
        "https://zenodo.org/records/14498691",
        lists=(
            "ASVspoof5.train.tsv",
            "ASVspoof5.*.track_1.tsv",
            "*/ASVspoof5.train.tsv",
            "*/ASVspoof5.*.track_1.tsv",
        ),
        columns={
            10: "speaker utterance gender codec codec_quality codec_seed attack_tag attack label unused"
        },
    ),
    DataSet(
        "Speech DF Arena, Hub audio folders",
        "`metadata.csv` or `.jsonl` with `file_name`, `label`",
        "https://huggingface.co/docs/datasets/audio_dataset",
        lists=("metadata.csv", "*/metadata.csv", "metadata.jsonl", "*/metadata.jsonl"),
    ),
    DataSet(
        "MLAAD",
        "`fake/<language>/<model>/` with or without `meta.csv`; all are fake",
        "https://huggingface.co/datasets/mueller91/MLAAD",
        "CC BY-NC 4.0",
        header={
            "path": "utterance",
            "originalfile": "original_file",
            "isoriginallanguage": "is_original_language",
            "modelname": "attack",
        },
        label_by=("attack", {".+": FAKE}),
        audio=("..", "../..", "../../..", "../../../.."),
        folders=((r"fake/(?P<language>[a-z-]{2,6})/(?P<attack>[^/]+)/[^/]+$", FAKE),),
    ),
    DataSet(
        "M-AILABS",
        "`<xx_YY>/by_book/<gender>/<speaker>/`; all are real",
        "https://github.com/imdatceleste/m-ailabs-dataset",
        folders=((r"(?P<language>[a-z]{2}_[A-Z]{2})/by_book/(?P<gender>[a-z]+)/(?P<speaker>[^/]+)/", REAL),),
    ),
    DataSet(
        "WaveFake",
        "`generated_audio/<system>/` is fake; LJSpeech, beside it, real",
        "https://zenodo.org/records/5642694",
        folders=((r"generated_audio/(?P<attack>[^/]+)/", FAKE),),
        is_vocoded=True,
    ),
    DataSet(
        "LJSpeech",
        "`LJSpeech-1.1/wavs/`; all are real",
        "https://keithito.com/LJ-Speech-Dataset",
        folders=((r"LJSpeech-\d[^/]*/wavs/", REAL),),
    ),
    DataSet(
        "LibriSeVoc",
        "`gt/` is real, `diffwave/`, `melgan/`, ... are fake",
        "https://zenodo.org/records/15127251",
        folders=(
            (r"gt/(?P<speaker>\d+)_[^/]+$", REAL),
            (
                r"(?P<attack>diffwave|melgan|parallel_wave_gan|wavegrad|wavenet|wavernn)/(?P<speaker>\d+)_[^/]+$",
                FAKE,
            ),
        ),
        is_vocoded=True,
    ),
    DataSet(
        "DFADD",
        "`DATASET_VCTK_BONAFIDE/<split>/` is real, `DATASET_<system>/<split>/` fake",
        "https://huggingface.co/datasets/isjwdu/DFADD",
        folders=(
            (rf"DATASET_VCTK_BONAFIDE/{_SPLIT}/", REAL),
            (rf"DATASET_(?P<attack>GradTTS|NaturalSpeech2|StyleTTS2|MatchaTTS|PFlow)/{_SPLIT}/", FAKE),
        ),
    ),
    DataSet(
        "Codecfake (Xie et al.)",
        "`label/*.txt`, each beside a folder of its name",
        "https://zenodo.org/records/13838106",
        lists=("label/*.txt", "*/label/*.txt"),
        columns={3: "utterance label codec"},
        audio=("../{stem}", "../*/{stem}"),
        is_vocoded=True,
    ),
    DataSet(
        "CodecFake (Wu et al.)",
        "`<codec>+<speaker>_...` is fake, `genuine/` real",
        "https://github.com/roger-tseng/CodecFake",
        folders=((r"(?P<codec>[A-Za-z][\w.-]*)\+(?P<speaker>[ps]\d+)_[^/]+$", FAKE),),
        is_vocoded=True,
    ),
    DataSet(
        "SpoofCeleb",
        "`metadata/*.csv` beside `flac/<split>/`; attack a00 is real",
        "https://huggingface.co/datasets/jungjee/spoofceleb",
        lists=("metadata/*.csv", "*/metadata/*.csv"),
        header={"file": "utterance", "speaker": "speaker", "attack": "attack"},
        label_by=("attack", {"a00": REAL, r"a\d\d": FAKE}),
        audio=("../flac/{stem}",),
    ),
    DataSet(
        "CVoiceFake",
        "`<language>/Bonafide/` is real, `<language>/<system>_generated/` fake",
        "https://safeearweb.github.io/Project",
        folders=((r"(?P<language>[A-Za-z]{2})/(?P<attack>[^/]+)_generated/", FAKE),),
        is_vocoded=True,
    ),
    DataSet(
        "DECRO",
        "`ch_*.txt`, `en_*.txt`, each beside a folder of its name",
        "https://github.com/petrichorwq/DECRO-dataset",
        lists=tuple(
            f"{language}_{phase}.txt" for language in ("ch", "en") for phase in ("train", "dev", "eval")
        ),
        audio=("{stem}",),
    ),
    DataSet(
        "ADD 2022, 2023",
        "`label.txt` beside `wav/`",
        "http://addchallenge.cn",
        lists=("label.txt", "*/label.txt"),
    ),
    DataSet(
        "PartialSpoof",
        "`database/protocols/` beside `database/<split>/con_wav/`; whole recordings",
        "https://zenodo.org/records/5766198",
        lists=(
            "protocols/*/PartialSpoof.LA.cm.*.txt",
            "database/protocols/*/PartialSpoof.LA.cm.*.txt",
            "*/database/protocols/*/PartialSpoof.LA.cm.*.txt",
        ),
        audio=("../../*/con_wav",),
    ),
    DataSet(
        "Deepfake-Eval-2024",
        "`audio-metadata-publish.csv` beside `audio-data/`",
        "https://huggingface.co/datasets/nuriachandra/Deepfake-Eval-2024",
        lists=("audio-metadata-publish.csv", "*/audio-metadata-publish.csv"),
        header={"filename": "utterance", "groundtruth": "label", "finetuningset": "split"},
        audio=("audio-data",),
    ),
    DataSet(
        "SpeechFake",
        "`Real/`; `BD/<system>/` and `MD/<system>/` are fake",
        "https://github.com/YMLLG/SpeechFake",
        folders=((r"(?:BD|MD)/(?P<attack>[^/]+)/", FAKE),),
    ),
    DataSet(
        "AntiDeepfake's protocols",
        "CSV with `ID`, `Label`, `Path`, `Proportion`; needs `--root`",
        "https://github.com/nii-yamagishilab/AntiDeepfake",
        header={"id": "id", "label": "label", "path": "utterance", "proportion": "split"},
    ),
    DataSet(
        "AUDDT's manifests",
        "`manifest.csv` with `audio_path` and `label`",
        "https://github.com/MuSAELab/AUDDT",
        lists=("manifest.csv",),
    ),
    DataSet(
        "Kaldi folders, as WeDefense's",
        "`utt2lab` beside `wav.scp`",
        "https://github.com/zlin0/wedefense",
        lists=("utt2lab", "data/utt2lab"),
    ),
)

# Where recordings of any list may be, relative to its folder or to one above.
AUDIO_FOLDERS = ("", "flac", "wav", "wavs", "*/flac", "*/wav", "flac_*", "*/flac_*", "*/*/flac")


def note_on(name: str) -> str:
    """Return what is to be said of a data set, by its name, when it is read; "" if nothing is."""
    if not any(data_set.is_vocoded for data_set in SETS if data_set.name == name):
        return ""
    return (
        f"{name}: its fakes are recordings of people, synthesised anew by vocoders or codecs; some toolkits "
        "count them as real, here they are fake"
    )


class Match(NamedTuple):
    """What a recording's path says of it: its data set, its label, and columns (speaker, attack, ...)."""

    data_set: DataSet
    label: str
    columns: dict[str, str]


def matching(path: str) -> Match | None:
    """Return the data set whose folders match a path with slashes."""
    for data_set, pattern, label in _FOLDERS:
        if found := pattern.search(path):
            return Match(data_set, label, {k: v for k, v in found.groupdict().items() if v})
    return None


_FOLDERS = [
    (data_set, re.compile(rf"(?:^|/){pattern}"), label)
    for data_set in SETS
    for pattern, label in data_set.folders
]
