"""Formats that libsndfile cannot read, and parts of recordings in every format."""

from pathlib import Path

import av
import numpy as np
import pytest
import scipy.stats
import soundfile
from helpers import FFMPEG_FORMATS, black, speech_like, write_by_ffmpeg
from scipy.signal import correlate

from antispoofing import audio
from antispoofing.data.recordings import find_recordings
from antispoofing.training.augment import KINDS, Augmentation
from antispoofing.training.clips import VariedClips
from data_utils import AUDIO_INFO, AudioError, audio_info, load_audio, make_loader, pad

NONE = Augmentation()


SNDFILE_FORMATS = {
    "a.wav": ("WAV", "PCM_16", 22051),
    "low.wav": ("WAV", "ULAW", 8000),
    "a.flac": ("FLAC", "PCM_16", 48000),
    "a.mp3": ("MP3", "MPEG_LAYER_III", 44100),
    "a.ogg": ("OGG", "VORBIS", 44100),
    "a.opus": ("OGG", "OPUS", 48000),
}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> dict[str, Path]:
    """Write a recording of 20 s in each format."""
    folder = tmp_path_factory.mktemp("recordings")
    for name in FFMPEG_FORMATS:
        write_by_ffmpeg(folder / name, 20)
    for name, (kind, subtype, rate) in SNDFILE_FORMATS.items():
        soundfile.write(folder / name, speech_like(20, rate), rate, format=kind, subtype=subtype)
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", FFMPEG_FORMATS)
def test_ffmpegs_formats_are_read_in_time_and_level(name, recordings):
    """Read at the file's own sample rate, so that only the codec makes a difference."""
    codec, rate, _ = FFMPEG_FORMATS[name]
    expected = speech_like(20, rate)[:, 0]
    wave = load_audio(recordings[name], sample_rate=rate)
    assert abs(len(wave) - len(expected)) < 0.1 * rate
    delay = correlate(wave[rate : 6 * rate], expected[rate : 6 * rate]).argmax() - (5 * rate - 1)
    assert abs(delay) < 0.05 * rate  # the encoder's delay, if the container does not record it
    if name in ("a.m4a", "lossless.m4a", "video.mp4", "a.webm", "a.mka"):
        assert delay == 0
    wave, expected = wave[rate + delay : 15 * rate + delay], expected[rate : 15 * rate]
    assert np.corrcoef(wave, expected)[0, 1] > (0.4 if "amr" in codec else 0.99)
    if "amr" not in codec:
        assert wave.std() / expected.std() == pytest.approx(1, abs=0.01)
    info = audio_info(recordings[name])
    assert info.sample_rate == rate
    assert info.seconds == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize("name", [*FFMPEG_FORMATS, *SNDFILE_FORMATS])
def test_a_part_equals_that_part_of_the_whole(name, recordings):
    rng = np.random.default_rng(1)
    whole = load_audio(recordings[name])
    for offset in [0.0, 19.9, *rng.uniform(0, 19, 6), *rng.uniform(0, 1, 2)]:
        samples = int(rng.choice([1, 400, 64600]))
        first = round(offset * 16000)
        part = load_audio(recordings[name], max_samples=samples, offset=offset)
        np.testing.assert_allclose(part, whole[first : first + samples], atol=1e-4, rtol=0)
    np.testing.assert_allclose(load_audio(recordings[name], offset=17.3), whole[276800:], atol=1e-4, rtol=0)
    with pytest.raises(AudioError, match=r"ends before 30 s"):
        load_audio(recordings[name], offset=30)


def test_only_the_part_is_decoded(recordings, monkeypatch):
    """Count the samples decoded for 1 s of a recording."""
    decoded = []
    samples = audio._samples

    def counted(frame):
        decoded.append(samples(frame))
        return decoded[-1]

    monkeypatch.setattr(audio, "_samples", counted)
    load_audio(recordings["a.mp3"], max_samples=16000, offset=12)
    assert 44100 < sum(map(len, decoded)) <= 44100 * 2.6


def test_every_format_fits_its_column():
    names = [*soundfile.available_formats(), *audio._CONTAINERS.upper().split(",")]
    assert max(map(len, names)) <= AUDIO_INFO["format"].itemsize


def test_a_video_without_sound_and_a_playlist_are_refused(tmp_path, recordings):
    with av.open(tmp_path / "mute.mp4", "w") as file:
        video = file.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        file.mux(video.encode(black()))
        file.mux(video.encode())
    with pytest.raises(AudioError, match="no audio track"):
        load_audio(tmp_path / "mute.mp4")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:20\n#EXTINF:20,\n{recordings['a.aac']}\n#EXT-X-ENDLIST\n"
    (tmp_path / "playlist.wav").write_text(playlist)
    with pytest.raises(AudioError, match="libsndfile"):
        load_audio(tmp_path / "playlist.wav")


def test_damage_is_an_error_or_affects_only_the_damaged_part(tmp_path, recordings):
    rng = np.random.default_rng(2)
    for name in FFMPEG_FORMATS:
        content = bytearray(recordings[name].read_bytes())
        for position in rng.integers(0, len(content), 20):
            content[position] = rng.integers(256)
        damaged = tmp_path / name
        damaged.write_bytes(content[: len(content) * 2 // 3])
        try:
            wave = load_audio(damaged)
        except AudioError as error:
            assert "\n" not in str(error)
        else:
            assert np.isfinite(wave).all()


def test_an_error_after_opening_is_an_audio_error_too(recordings, monkeypatch):
    """If libsndfile gives up halfway, ffmpeg reads it; if that does, too, it is an AudioError."""

    def failing(self, *args, **kwargs):
        raise soundfile.LibsndfileError(2)

    whole = load_audio(recordings["a.flac"])
    monkeypatch.setattr(soundfile.SoundFile, "read", failing)
    np.testing.assert_array_equal(load_audio(recordings["a.flac"]), whole)
    monkeypatch.setattr(audio._Ffmpeg, "read", failing)
    with pytest.raises(AudioError, match="libsndfile cannot read it: System error"):
        load_audio(recordings["a.flac"])


def varied(utterances, clip_samples, epoch, augmentation=NONE, seed=0) -> VariedClips:
    how = {"seed": seed, "epoch": epoch, "random_crop": True, "augmentation": augmentation}
    return VariedClips([utterance.path for utterance in utterances], 16000, clip_samples, **how)


def test_a_random_crop_is_the_same_part_for_any_worker_and_new_in_each_epoch(tmp_path):
    """Each item is one part of the whole, drawn from the seed, the epoch and its index alone."""
    for i, seconds in enumerate((20, 6, 4.0375, 1)):
        soundfile.write(tmp_path / f"{i}.wav", speech_like(seconds, 44100), 44100)
    (tmp_path / "4.aac").write_bytes(encoded_aac(tmp_path)[:-2000])  # the header's duration is an estimate
    utterances = find_recordings([tmp_path]).utterances

    def epoch_of(number, workers=0, seed=7, batches=((0, 1), (2, 3), (4,)), augmentation=NONE):
        loader = make_loader(varied(utterances, 64600, number, augmentation, seed), batches, workers)
        return {
            i: wave.numpy() for indices, waves, *_ in loader for i, wave in zip(indices, waves, strict=True)
        }

    first = epoch_of(1)
    for other in (epoch_of(1, workers=2), epoch_of(1, batches=((3, 0), (2, 4, 1)))):
        assert all(np.array_equal(first[i], other[i]) for i in range(5))
    everything = Augmentation(4, KINDS, probability=0.9)
    augmented = epoch_of(1, augmentation=everything)
    other = epoch_of(1, workers=2, batches=((3, 0), (2, 4, 1)), augmentation=everything)
    again = epoch_of(2, augmentation=everything)
    for i in range(5):
        assert np.array_equal(augmented[i], other[i])
        assert not np.array_equal(augmented[i], first[i])
        assert not np.array_equal(augmented[i], again[i])
    offsets = []
    for waves in (first, epoch_of(2), epoch_of(1, seed=8)):
        whole = load_audio(utterances[0].path)
        offset = correlate(whole, waves[0], "valid").argmax()
        np.testing.assert_allclose(waves[0], whole[offset : offset + 64600], atol=1e-4)
        offsets.append(offset)
        for i in (2, 3):  # these are no longer than the clip, so there is nothing to choose
            np.testing.assert_array_equal(waves[i], pad(load_audio(utterances[i].path))[:64600])
    assert len(set(offsets)) == 3


def encoded_aac(folder) -> bytes:
    write_by_ffmpeg(folder / "a.aac", 5)
    content = (folder / "a.aac").read_bytes()
    (folder / "a.aac").unlink()
    return content


def test_random_crops_reach_every_part(tmp_path):
    soundfile.write(tmp_path / "ramp.wav", np.linspace(-0.9, 0.9, 16000 * 9), 16000, subtype="FLOAT")
    utterances = find_recordings([tmp_path]).utterances
    starts = []
    for epoch in range(200):
        _, wave, *_ = varied(utterances, 16000, epoch)[0]
        starts.append((wave[0] + 0.9) / 1.8 * 9)  # s
    assert min(starts) < 0.3
    assert max(starts) > 7.7
    assert scipy.stats.kstest(np.array(starts) / 8, "uniform").pvalue > 0.01
