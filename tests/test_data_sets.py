"""Every data set of `sets.py`, and lists in the field's other forms, are read as published."""

from collections import Counter

import pytest
from helpers import touch, write_lists

from antispoofing.data.labels import Reading
from antispoofing.data.recordings import find_recordings
from antispoofing.data.sets import SETS
from antispoofing.data.splits import find_training_data
from antispoofing.data.words import KNOWN, Words, plain
from antispoofing.errors import DataError

MLAAD = "|".join(
    "path original_file language is_original_language duration training_data model_name architecture "
    "transcript".split()
)

# By the set's name: its lists, its recordings, how many are real and fake, and one recording's columns.
LAYOUTS = {
    "In-the-Wild": (
        {"meta.csv": "file,speaker,label\n0.wav,Ann,bona-fide\n1.wav,Bob,spoof\n"},
        ["0.wav", "1.wav"],
        (1, 1),
        ("0.wav", {"speaker": "Ann"}),
    ),
    "ASVspoof 2019 LA, PA": (
        {
            "PA/ASVspoof2019_PA_cm_protocols/ASVspoof2019.PA.cm.eval.trl.txt": (
                "PA_1 PA_E_0 aaa - bonafide\nPA_1 PA_E_1 aaa AA spoof\n"
            )
        },
        ["PA/ASVspoof2019_PA_eval/flac/PA_E_0.flac", "PA/ASVspoof2019_PA_eval/flac/PA_E_1.flac"],
        (1, 1),
        ("PA_E_1.flac", {"speaker": "PA_1", "environment": "aaa", "attack": "AA"}),
    ),
    "ASVspoof 2021 LA": (
        {
            "keys/LA/CM/trial_metadata.txt": "S LA_E_1 alaw x A07 spoof notrim eval\n"
            "S LA_E_2 alaw x bonafide bonafide notrim eval\n"
        },
        ["ASVspoof2021_LA_eval/flac/LA_E_1.flac", "ASVspoof2021_LA_eval/flac/LA_E_2.flac"],
        (1, 1),
        (
            "LA_E_1.flac",
            {
                "speaker": "S",
                "codec": "alaw",
                "transmission": "x",
                "attack": "A07",
                "trim": "notrim",
                "phase": "eval",
            },
        ),
    ),
    "ASVspoof 2021 PA": (
        {
            "keys/PA/CM/trial_metadata.txt": "PA_22 PA_E_1 R6 M1 - r4 m1 - c4 bonafide notrim eval\n"
            "PA_22 PA_E_2 R6 M1 d4 r4 m1 s4 c4 spoof notrim eval\n"
            "PA_22 PA_E_3 R6 M1 d4 r4 m1 s4 c4 spoof notrim progress\n"
        },
        ["ASVspoof2021_PA_eval/flac/PA_E_1.flac", "ASVspoof2021_PA_eval/flac/PA_E_2.flac"],
        (1, 1),
        (
            "PA_E_2.flac",
            {
                **{
                    "speaker": "PA_22",
                    "environment": "R6",
                    "microphone": "M1",
                    "distance": "d4",
                    "room": "r4",
                },
                **{"asv_distance": "m1", "source": "s4", "playback": "c4", "trim": "notrim", "phase": "eval"},
            },
        ),
    ),
    "ASVspoof 2021 DF": (
        {
            "keys/DF/CM/trial_metadata.txt": "".join(
                f"S DF_E_{i} nocodec vcc2020 A1 {label} notrim eval nv Task1 team20 FF E\n"
                for i, label in enumerate(("spoof", "bonafide"))
            )
        },
        ["part00/ASVspoof2021_DF_eval/flac/DF_E_0.flac", "part01/ASVspoof2021_DF_eval/flac/DF_E_1.flac"],
        (1, 1),
        (
            "part01/ASVspoof2021_DF_eval/flac/DF_E_1.flac",
            {
                **{
                    "speaker": "S",
                    "codec": "nocodec",
                    "source": "vcc2020",
                    "trim": "notrim",
                    "phase": "eval",
                },
                **{"task": "Task1", "team": "team20", "pair": "FF", "language": "E"},
            },
        ),
    ),
    "ASVspoof 5": (
        {
            "ASVspoof5.eval.track_1.tsv": "E_1 E_01 F C05 5 - AC1 A19 spoof -\n"
            "E_1 E_02 M - - - - bonafide bonafide -\n"
        },
        ["flac_E_eval/E_01.flac", "flac_E_eval/E_02.flac"],
        (1, 1),
        ("E_02.flac", {"speaker": "E_1", "gender": "M", "codec": "none"}),
    ),
    "Speech DF Arena, Hub audio folders": (
        {
            "metadata.jsonl": '{"file_name": "a.wav", "label": "real", "age": 3}\n\n'
            '{"file_name": "b.wav", "label": "fake"}\n'
        },
        ["a.wav", "b.wav"],
        (1, 1),
        ("a.wav", {"age": "3"}),
    ),
    "MLAAD": (
        {
            "fake/de/bark/meta.csv": f"{MLAAD}\n"
            "fake/de/bark/0.wav|./de_DE/0.wav|de|True|0.5|x|bark|b|hallo, du\n"
        },
        ["fake/de/bark/0.wav", "fake/en/vits-x/1.wav"],
        (0, 2),
        ("fake/en/vits-x/1.wav", {"language": "en", "attack": "vits-x"}),
    ),
    "M-AILABS": (
        {},
        ["de_DE/by_book/female/eva_k/grune_haus/wavs/0.wav", "de_DE/by_book/mix/a/b/wavs/0.wav"],
        (2, 0),
        (
            "de_DE/by_book/female/eva_k/grune_haus/wavs/0.wav",
            {"language": "de_DE", "gender": "female", "speaker": "eva_k"},
        ),
    ),
    "WaveFake": (
        {},
        ["generated_audio/ljspeech_melgan/1_gen.wav", "LJSpeech-1.1/wavs/LJ001-0001.wav"],
        (1, 1),
        ("generated_audio/ljspeech_melgan/1_gen.wav", {"attack": "ljspeech_melgan"}),
    ),
    "LJSpeech": (
        {"LJSpeech-1.1/metadata.csv": "LJ001-0001|Printing, in the only sense|Printing\n"},
        ["LJSpeech-1.1/wavs/LJ001-0001.wav"],
        (1, 0),
        ("wavs/LJ001-0001.wav", {}),
    ),
    "LibriSeVoc": (
        {},
        ["gt/27_1_0.wav", "diffwave/27_1_0_gen.wav", "wavernn/28_1_0_gen.wav"],
        (1, 2),
        ("wavernn/28_1_0_gen.wav", {"attack": "wavernn", "speaker": "28"}),
    ),
    "DFADD": (
        {},
        ["DATASET_VCTK_BONAFIDE/test/p1.wav", "DATASET_GradTTS/test/p1.wav", "DATASET_PFlow/train/p2.wav"],
        (1, 2),
        ("DATASET_PFlow/train/p2.wav", {"attack": "PFlow", "split": "train"}),
    ),
    "Codecfake (Xie et al.)": (
        {
            "label/train.txt": "A.wav real 0\nB.wav fake 1\n",
            "label/C1.txt": "C.wav real 0\nD.wav fake 1\nE.wav fake 1\n",
        },
        ["train/A.wav", "train/B.wav", "C1/C.wav", "C1/D.wav", "C1/E.wav"],
        (1, 2),
        ("D.wav", {"codec": "1"}),
    ),
    "CodecFake (Wu et al.)": (
        {},
        ["all/SoundStream+p225_001.wav", "all/Encodec_24k+s5_002.wav", "genuine/p225_001.wav"],
        (1, 2),
        ("all/Encodec_24k+s5_002.wav", {"codec": "Encodec_24k", "speaker": "s5"}),
    ),
    "SpoofCeleb": (
        {
            "metadata/train.csv": "file,speaker,attack\na00/id1/x.flac,id1,a00\n",
            "metadata/evaluation.csv": "file,speaker,attack\na00/id2/y.flac,id2,a00\n"
            "a15/id3/z.flac,id3,a15\n",
        },
        ["flac/train/a00/id1/x.flac", "flac/evaluation/a00/id2/y.flac", "flac/evaluation/a15/id3/z.flac"],
        (1, 1),
        ("a15/id3/z.flac", {"speaker": "id3", "attack": "a15"}),
    ),
    "CVoiceFake": (
        {},
        [
            "EN/Bonafide/a.mp3",
            "EN/griffin_lim_generated/a.mp3",
            "zh/melgan.v2_generated/b.mp3",
        ],
        (1, 2),
        (
            "zh/melgan.v2_generated/b.mp3",
            {"language": "zh", "attack": "melgan.v2"},
        ),
    ),
    "DECRO": (
        {
            "ch_eval.txt": "s1 a - - bonafide\ns1 b - hifigan spoof\n",
            "en_eval.txt": "s2 c - - bonafide\n",
            "en_train.txt": "s3 d - - bonafide\n",
        },
        ["ch_eval/a.wav", "ch_eval/b.wav", "en_eval/c.wav", "en_train/d.wav"],
        (2, 1),
        ("ch_eval/b.wav", {"speaker": "s1", "attack": "hifigan"}),
    ),
    "ADD 2022, 2023": (
        {"label.txt": "ADD_T_0.wav genuine\nADD_T_1.wav fake\n"},
        ["wav/ADD_T_0.wav", "wav/ADD_T_1.wav"],
        (1, 1),
        ("ADD_T_0.wav", {}),
    ),
    "PartialSpoof": (
        {
            "database/protocols/PartialSpoof_LA_cm_protocols/PartialSpoof.LA.cm.eval.trl.txt": (
                "LA_1 CON_E_0 - CON spoof\nLA_2 CON_E_1 - - bonafide\n"
            ),
        },
        ["database/eval/con_wav/CON_E_0.wav", "database/eval/con_wav/CON_E_1.wav"],
        (1, 1),
        ("CON_E_0.wav", {"speaker": "LA_1", "attack": "CON"}),
    ),
    "Deepfake-Eval-2024": (
        {
            "audio-metadata-publish.csv": "Filename,Ground Truth,Finetuning Set\n"
            "a.wav,Real,Train\nb.mp3,Fake,Test\n"
        },
        ["audio-data/a.wav", "audio-data/b.mp3"],
        (1, 1),
        ("b.mp3", {"split": "Test"}),
    ),
    "SpeechFake": (
        {},
        ["Real/VCTK/a.wav", "BD/HiFiGAN/b.wav", "MD/XTTS/c.wav"],
        (1, 2),
        ("MD/XTTS/c.wav", {"attack": "XTTS"}),
    ),
    "AUDDT's manifests": (
        {"manifest.csv": "audio_path,duration,label\naudio/a.wav,0.5,bonafide\naudio/b.wav,0.5,spoof\n"},
        ["audio/a.wav", "audio/b.wav"],
        (1, 1),
        ("audio/a.wav", {"duration": "0.5"}),
    ),
    "Kaldi folders, as WeDefense's": (
        {"data/wav.scp": "a sounds/a 1.wav\nb sounds/b.wav\n", "data/utt2lab": "a bonafide\nb spoof\n"},
        ["data/sounds/a 1.wav", "data/sounds/b.wav"],
        (1, 1),
        ("sounds/a 1.wav", {"id": "a"}),
    ),
}
LISTS_ALONE = {"AntiDeepfake's protocols"}  # these have no folder of their own


def counts(result) -> tuple[int, int]:
    found = Counter(u.label for u in result.utterances)
    assert found[""] == 0
    return found["bonafide"], found["spoof"]


def test_every_set_has_its_test():
    assert {data_set.name for data_set in SETS} == LAYOUTS.keys() | LISTS_ALONE


@pytest.mark.parametrize("deeper", ["", "archive/"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_is_read(name, deeper, tmp_path):
    lists, recordings, expected, (one, columns) = LAYOUTS[name]
    write_lists(tmp_path / deeper, lists, *recordings)
    result = find_recordings([tmp_path])
    assert counts(result) == expected
    assert all((result.root / u.name).is_file() or (tmp_path / u.path).is_file() for u in result.utterances)
    (found,) = [u for u in result.utterances if u.name.endswith(one)]
    assert found.columns == columns


def test_an_antideepfake_protocol_is_read_with_its_root(tmp_path):
    header = "ID,Label,Duration,SampleRate,Path,Attack,Speaker,Proportion,Language\n"
    rows = (
        "X-a,fake,0.5,16000,$ROOT//toy/a.wav,A10,s,test,EN\nX-b,real,0.5,16000,$ROOT/toy/b.wav,-,s,train,EN\n"
    )
    write_lists(tmp_path, {"lists/test.csv": header + rows}, "data/toy/a.wav", "data/toy/b.wav")
    result = find_recordings([tmp_path / "lists/test.csv"], root=tmp_path / "data")
    assert counts(result) == (1, 1)
    assert result.utterances[0].columns["split"] == "test"


def test_the_lists_for_training_and_development_are_splits(tmp_path):
    lists = {
        f"metadata/{name}.csv": "file,speaker,attack\n"
        + "".join(f"a0{i}/id{i}/{name[0]}.flac,{name}{i},a0{i}\n" for i in range(2))
        for name in ("train", "development", "evaluation")
    }
    places = [(name, i) for name in ("train", "development", "evaluation") for i in range(2)]
    write_lists(tmp_path, lists, *(f"flac/{name}/a0{i}/id{i}/{name[0]}.flac" for name, i in places))
    splits = find_training_data([tmp_path])
    assert [u.columns["speaker"] for u in splits.training] == ["train0", "train1"]
    assert [u.columns["speaker"] for u in splits.validation] == ["development0", "development1"]
    assert len(splits.testing[tmp_path.name].utterances) == 2


def test_a_list_that_only_looks_like_a_sets_is_not_labelled_by_its_rule(tmp_path):
    write_lists(tmp_path, {"l.csv": "file,speaker,attack\na.wav,x,a00\nb.wav,x,hifigan\n"}, "a.wav", "b.wav")
    with pytest.raises(DataError, match="row 3: unknown label 'hifigan'"):
        find_recordings([tmp_path / "l.csv"])


def test_vocoded_sets_say_what_their_fakes_are(tmp_path):
    write_lists(tmp_path, *LAYOUTS["LibriSeVoc"][:1], *LAYOUTS["LibriSeVoc"][1])
    notes = find_recordings([tmp_path]).notes
    assert notes[0] == "LibriSeVoc: 3 recordings labelled by its folders"
    assert "some toolkits count them as real, here they are fake" in notes[1]


def test_folders_of_a_set_do_not_overrule_the_words(tmp_path):
    touch(tmp_path, "real/en/hifigan_generated/a.wav")
    with pytest.raises(DataError, match="both a real and a fake folder"):
        find_recordings([tmp_path])


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("human", "ai"),
        ("genuine", "deepfake"),
        ("original", "Synthetic"),
        ("REAL", "generated"),
        ("真实", "伪造"),
        ("Echt", "gefälscht"),
    ],
)
def test_words_of_the_field_label_folders_and_lists(real, fake, tmp_path):
    write_lists(
        tmp_path,
        {"l.csv": f"path,label\n{real}/a.wav,{fake}\n{fake}/b.wav,{real}\n"},
        f"{real}/a.wav",
        f"{fake}/b.wav",
    )
    labels = {u.name[-5:]: u.label for u in find_recordings([tmp_path]).utterances}
    assert labels == {"a.wav": "bonafide", "b.wav": "spoof"}
    labels = {u.name[-5:]: u.label for u in find_recordings([tmp_path / "l.csv"]).utterances}
    assert labels == {"a.wav": "spoof", "b.wav": "bonafide"}


def test_words_with_other_meanings_do_not_contradict_the_others(tmp_path):
    touch(tmp_path, "original/fake/a.wav", "original/real/b.wav", "generated/c.wav")
    found = {u.name: u.label for u in find_recordings([tmp_path]).utterances}
    assert found == {
        "original/fake/a.wav": "spoof",
        "original/real/b.wav": "bonafide",
        "generated/c.wav": "spoof",
    }


def test_no_word_means_both():
    words = [word for label in (KNOWN.first, KNOWN.also) for word in label]
    assert len(words) == len(set(words))
    assert all(plain(word) == word for word in words)


def test_the_user_says_what_words_mean(tmp_path):
    write_lists(tmp_path, {"l.csv": "path,label\nx/a.wav,1\ny/b.wav,0\n"}, "x/a.wav", "y/b.wav")
    with pytest.raises(DataError) as caught:
        find_recordings([tmp_path / "l.csv"])
    assert caught.value.args[-1] == "what 0, 1 means, say with --real-words and --fake-words"
    reading = Reading(Words.of(real=["1", "X"], fake=["0", "y"]))
    for path in (tmp_path / "l.csv", tmp_path):
        assert counts(find_recordings([path], reading=reading)) == (1, 1)
    overruled = Reading(Words.of(real=["fake"], fake=["real"]))
    touch(tmp_path / "z", "real/a.wav")
    assert counts(find_recordings([tmp_path / "z"], reading=overruled)) == (0, 1)
    with pytest.raises(DataError, match="cannot mean both"):
        Words.of(real=["1"], fake=["1"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SSB1.wav real 0\nF01_SSB1.wav fake 1\n", ["SSB1.wav", "F01_SSB1.wav"]),
        ("LA_0079 a - bonafide\nLA_0079 b A01 spoof\n", ["a", "b"]),
        ("m4singer S_1 a - - bonafide\nm4singer S_1 b - A03 deepfake\n", ["a", "b"]),
        ('path\tlabel\tsentence\na.wav\treal\t"Hello" she said\nb.wav\tfake\tok\n', ["a.wav", "b.wav"]),
        ("path|label\na.wav|real\nb.wav|fake\n", ["a.wav", "b.wav"]),
        ("utterance_id,target\na,bonafide\nb,spoof\n", ["a", "b"]),
        ('path,label\r"a.wav",real\rb.wav,fake\r', ["a.wav", "b.wav"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_other_forms_are_read(text, expected, encoding, tmp_path):
    (tmp_path / "l.txt").write_bytes(text.encode(encoding))
    names = [name if "." in name else f"{name}.flac" for name in expected]
    touch(tmp_path, *names)
    result = find_recordings([tmp_path / "l.txt"])
    assert [u.trial for u in result.utterances] == sorted(expected)
    assert counts(result) == (1, 1)


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("a.wav 7 human\nb.wav 8 robot\n", Reading(Words.of(fake=["robot"]), {"path": "1", "label": "3"})),
        (
            "clip name;verdict\na.wav;real\nb.wav;fake\n",
            Reading(columns={"path": "Clip Name", "label": "verdict"}),
        ),
        ("a.wav#real\nb.wav#fake\n", Reading(separator="#")),
    ],
)
def test_the_user_says_what_columns_are(text, reading, tmp_path):
    (tmp_path / "l.txt").write_text(text, encoding="utf-8")
    touch(tmp_path, "a.wav", "b.wav")
    assert counts(find_recordings([tmp_path / "l.txt"], reading=reading)) == (1, 1)


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        ("a b real\nc d fake\n", {}, "3 columns, no header, .*--columns path=1 label=2"),
        (
            "path,label\na,real\n",
            {"path": "file"},
            "--columns path=file: there is no such column",
        ),
        ("a real\n", {"label": "3"}, "--columns label=3: there is no such column .it has 2 columns"),
        ("a real\n", {"label": "2"}, "--columns needs path="),
    ],
)
def test_columns_that_are_not_clear_are_an_error(text, columns, words, tmp_path):
    (tmp_path / "l.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        find_recordings([tmp_path / "l.csv"], reading=Reading(columns=columns))


@pytest.mark.parametrize(
    ("scp", "lab", "words"),
    [
        ("a a.wav\n", "a real\nb fake\n", r"row 2: b is not in wav\.scp"),
        (
            "a sox in.wav -t wav - |\n",
            "a real\n",
            "a is a command, not a file; commands",
        ),
        (None, "a real\n", "there is no wav.scp beside it"),
    ],
)
def test_what_is_wrong_with_kaldis_lists_is_said(scp, lab, words, tmp_path):
    write_lists(tmp_path, {"utt2lab": lab} | ({"wav.scp": scp} if scp else {}), "a.wav")
    with pytest.raises(DataError, match=words):
        find_recordings([tmp_path / "utt2lab"])
