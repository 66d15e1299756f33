"""Augmentation against independent computations: spectra, energies, the distribution of draws."""

import itertools
import pickle
import random
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import soundfile
import soxr
from scipy.signal import correlate, freqz, lfilter

from antispoofing.training import augment
from antispoofing.training.augment import CODECS, KINDS, Augmentation
from data_utils import load_audio

SAMPLES = Path(__file__).parent.parent / "samples"
RATE = 16000


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """float32 [n], 2 s, peak 0.9."""
    wave = load_audio(SAMPLES / "custom" / "Real" / "austen-reader-1.flac", max_samples=2 * RATE)
    return wave * np.float32(0.9 / np.abs(wave).max())


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_uniform(values, low: float, high: float) -> None:
    """Check that values are spread between two limits as uniform draws are."""
    values = (np.asarray(values) - low) / (high - low)
    assert -1e-3 <= values.min() < 0.03
    assert 0.97 < values.max() <= 1 + 1e-3
    assert scipy.stats.kstest(values, "uniform").pvalue > 0.01


def decibels(ratio):
    return 20 * np.log10(ratio)


# -------------------------------------------------------------------- RawBoost


def windowed_band_stop(low: float, high: float, taps: int, rate: int) -> np.ndarray:
    """All minus the ideal band between two frequencies in Hz, under a Hamming window."""
    n = np.arange(taps) - taps // 2
    band = 2 * high / rate * np.sinc(2 * high / rate * n) - 2 * low / rate * np.sinc(2 * low / rate * n)
    return ((n == 0) - band) * np.hamming(taps)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("bands", [1, 5])
def test_notch_filters_are_windowed_band_stops_in_series(rate, bands):
    """Up to their gain; in the order of the draws that the docstring tells."""
    for seed in range(20):
        rng = rng_of(seed)
        centres, widths = rng.uniform(20, min(8000, rate / 2), bands), rng.uniform(100, 1000, bands)
        taps = [n + 1 if n % 2 == 0 else n for n in rng.integers(10, 100, bands)]
        response = 1
        for centre, width, n in zip(centres, widths, taps, strict=True):
            low, high = max(centre - width / 2, 0.001), min(centre + width / 2, rate / 2 - 0.001)
            response = response * freqz(windowed_band_stop(low, high, n, rate), worN=4096)[1]
        coefficients = augment.notch_filter(rate, rng_of(seed), bands=bands)
        assert len(coefficients) == sum(taps) - bands + 1
        response /= np.abs(response).max()
        of_filter = freqz(coefficients, worN=4096)[1]
        sign = np.sign((of_filter * response.conj()).sum().real)  # firwin lets no zero frequency be negative
        np.testing.assert_allclose(of_filter, sign * response, atol=2e-3)


def test_a_notch_is_where_its_band_is():
    for seed in range(20):
        centre = rng_of(seed).uniform(2000, 6000, 1)
        coefficients = augment.notch_filter(
            RATE, rng_of(seed), bands=1, centre_hz=(2000, 6000), width_hz=(900, 1000), taps=(99, 100)
        )
        at_centre, beside = np.abs(freqz(coefficients, worN=[centre[0], centre[0] + 1000], fs=RATE)[1])
        assert decibels(at_centre) < -30
        assert decibels(beside) > -1


def test_the_gain_of_a_notch_filter_is_its_loudest_frequencys():
    gains = []
    for seed in range(150):
        coefficients = augment.notch_filter(RATE, rng_of(seed), (-20, -5))
        gains.append(decibels(np.abs(freqz(coefficients, worN=1 << 14)[1]).max()))
        assert len(coefficients) % 2 == 1
    assert_uniform(gains, -20, -5)
    flat = augment.notch_filter(RATE, rng_of(0))
    assert np.abs(freqz(flat, worN=1 << 14)[1]).max() == pytest.approx(1, abs=1e-3)


def test_five_bands_with_every_odd_number_of_taps():
    for seed in range(3):
        five = augment.notch_filter(RATE, rng_of(seed), bands=5)
        assert np.array_equal(augment.notch_filter(RATE, rng_of(seed)), five)
    lengths = {len(augment.notch_filter(RATE, rng_of(seed), bands=1)) for seed in range(500)}
    assert lengths == set(range(11, 100, 2))


def filtered(wave: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Without delay; silence before and after."""
    delay = len(coefficients) // 2
    return lfilter(coefficients, 1, np.pad(wave, (0, delay)))[delay:]


@pytest.mark.parametrize("samples", [1, 2, 60, 4000, 32000])
def test_part_1_filters_the_powers_of_the_wave(samples, speech):
    """One order is linear; the non-linear ones' filters are 5 to 20 dB below the linear one's."""
    wave = speech[-samples:]
    for orders, seed in itertools.product((1, 5), range(3)):
        rng = rng_of(seed)
        expected = filtered(wave.astype(np.float64), augment.notch_filter(RATE, rng, (0, 0)))
        for order in range(2, orders + 1):
            expected += filtered(wave.astype(np.float64) ** order, augment.notch_filter(RATE, rng, (-20, -5)))
        expected -= expected.mean()
        expected /= max(1, np.abs(expected).max())
        result = augment.convolutive_noise(wave, RATE, rng_of(seed), orders=orders)
        np.testing.assert_allclose(result, expected, atol=1e-9)
        if samples > 1 and orders == 5:
            assert np.array_equal(result, augment.convolutive_noise(wave, RATE, rng_of(seed)))


def test_part_1_has_no_mean_and_a_peak_of_at_most_1(speech):
    square = np.sign(speech) * np.float32(0.99)  # overshoots behind every filter
    peaks = []
    for seed in range(20):
        result = augment.convolutive_noise(square, RATE, rng_of(seed))
        peaks.append(np.abs(result).max())
        assert abs(result.mean()) < 1e-12
        soft = augment.convolutive_noise(0.01 * speech + 0.02, RATE, rng_of(seed))
        assert np.abs(soft).max() < 0.1  # not brought up to 1
        assert abs(soft.mean()) < 1e-12
    assert max(peaks) == 1.0


def test_part_2_scales_a_share_of_the_samples():
    wave = rng_of(0).uniform(0.05, 0.3, 5000).astype(np.float32)  # no zeros, and 3 x 0.3 is below 1
    shares, places, factors = [], [], []
    rng = rng_of(1)
    for _ in range(300):
        result = augment.impulsive_noise(wave, rng)
        touched = result != wave
        shares.append(touched.mean())
        places.append(np.flatnonzero(touched) / len(wave))
        factors.append((result[touched] / wave[touched].astype(np.float64) - 1) / 2)
    assert_uniform(shares, 0, 0.1)
    assert_uniform(np.concatenate(places), 0, 1)
    factors = np.concatenate(factors)
    assert scipy.stats.kstest(np.abs(factors), lambda v: v * (1 - np.log(v))).pvalue > 0.01  # of |u1 u2|
    assert scipy.stats.binomtest((factors > 0).sum(), len(factors)).pvalue > 0.01


def test_no_place_is_drawn_twice_in_part_2():
    wave = np.full(2000, 0.1)
    shares = [
        (augment.impulsive_noise(wave, rng_of(seed), max_percent=100) != wave).mean() for seed in range(200)
    ]
    assert_uniform(shares, 0, 1)


def test_part_2_limits_the_peak_only_where_it_is_above_1():
    wave = np.full(2000, 0.9)
    for seed in range(20):
        result = augment.impulsive_noise(wave, rng_of(seed))
        assert np.abs(result).max() == 1
        values, counts = np.unique(result, return_counts=True)
        factor = values[counts.argmax()] / 0.9  # of the untouched
        assert factor < 1
        unlimited = augment.impulsive_noise(wave / 90, rng_of(seed)) * 90
        np.testing.assert_allclose(result, unlimited * factor, rtol=1e-12)


def snr_of(wave: np.ndarray, noisy: np.ndarray) -> float:
    wave = wave.astype(np.float64)
    return 10 * np.log10((wave**2).sum() / ((noisy - wave) ** 2).sum())


def test_part_3_adds_filtered_white_noise_at_its_ratio(speech):
    wave = speech[8000:12000]
    results = [augment.stationary_noise(wave, RATE, rng_of(seed)) for seed in range(300)]
    assert_uniform([snr_of(wave, noisy) for noisy in results], 10, 40)
    for seed in range(10):
        rng = rng_of(seed)
        white = rng.standard_normal(len(wave))
        noise = filtered(white, augment.notch_filter(RATE, rng))
        added = results[seed] - wave
        np.testing.assert_allclose(added / added.std(), noise / noise.std(), atol=1e-6)


def test_part_3_does_not_limit_the_peak():
    wave = np.where(np.arange(4000) % 2, 1.0, -1.0)
    assert all(np.abs(augment.stationary_noise(wave, RATE, rng_of(seed))).max() > 1 for seed in range(10))


def test_the_algorithms_are_the_parts_in_series_or_parallel(speech):
    def parts(*numbers):
        def apply(wave, rng):
            for number in numbers:
                wave = {
                    1: lambda x: augment.convolutive_noise(x, RATE, rng),
                    2: lambda x: augment.impulsive_noise(x, rng),
                    3: lambda x: augment.stationary_noise(x, RATE, rng),
                }[number](wave)
            return wave

        return apply

    def parallel(wave, rng):
        total = parts(1)(wave, rng) + parts(2)(wave, rng)
        return total / max(1, np.abs(total).max())

    series = [(), (1,), (2,), (3,), (1, 2, 3), (1, 2), (1, 3), (2, 3)]
    algorithms = [*(parts(*numbers) for numbers in series), parallel]
    for level in (0.1, 1):
        wave = speech[8000:16000] * np.float32(level)
        results = [augment.rawboost(wave, RATE, number, rng_of(1)) for number in range(9)]
        for result, algorithm in zip(results, algorithms, strict=True):
            np.testing.assert_array_equal(result, algorithm(wave, rng_of(1)))
        for one, other in itertools.combinations(results, 2):
            assert not np.allclose(one, other)


def test_rawboost_is_applied_to_every_clip(speech):
    wave = speech[8000:12000]
    for number in range(9):
        augmentation = Augmentation(rawboost=number, probability=0)
        changed = [not np.array_equal(augmentation(wave, RATE, rng_of(seed)), wave) for seed in range(10)]
        assert changed == [number != 0] * 10


# ----------------------------------------------------------------------- kinds


def test_speed_moves_a_tone_and_the_length():
    tone = 0.5 * np.sin(2 * np.pi * 1000 / RATE * np.arange(16000))
    factors = []
    for seed in range(200):
        result = augment.change_speed(tone, rng_of(seed))
        power = np.log(np.abs(np.fft.rfft(result * np.hanning(len(result)))))
        k = power.argmax()
        below, at, above = power[k - 1 : k + 2]
        frequency = (k + (below - above) / (below - 2 * at + above) / 2) * RATE / len(result)
        factors.append(frequency / 1000)
        assert len(result) == pytest.approx(16000 / factors[-1], abs=1.5)
        assert result[2000:-2000].std() == pytest.approx(tone.std(), rel=1e-3)
    assert_uniform(factors, 0.9, 1.1)


@pytest.mark.parametrize("samples", [1, 1000, 1001, 6460])
def test_enough_is_loaded_for_the_fastest(samples):
    augmentation = Augmentation(kinds=("speed",), probability=1)
    needed = augmentation.samples_needed(samples)
    wave = np.zeros(needed, np.float32)
    lengths = [len(augmentation(wave, RATE, rng_of(seed))) for seed in range(200)]
    assert min(lengths) >= samples
    assert min(lengths) <= samples * 1.01 + 1
    assert Augmentation(rawboost=4, kinds=("noise", "codec", "gain")).samples_needed(samples) == samples
    fastest = SimpleNamespace(uniform=lambda low, high: high)
    assert len(augment.change_speed(wave, fastest)) >= samples


def test_noise_has_its_colour_and_ratio():
    """The colour by regression of the log periodogram, which errs by 0.014 here."""
    wave = 0.1 * np.sin(np.arange(16384))
    log_frequency = np.log(np.arange(1, 8192))
    ratios, exponents = [], []
    for seed in range(200):
        noisy = augment.add_coloured_noise(wave, rng_of(seed))
        ratios.append(snr_of(wave, noisy))
        spectrum = np.abs(np.fft.rfft(noisy - wave))
        assert spectrum[0] < 1e-6 * spectrum.max()
        exponents.append(-2 * np.polyfit(log_frequency, np.log(spectrum[1:-1]), 1)[0])
    assert_uniform(ratios, 10, 40)
    assert_uniform(np.clip(exponents, 0, 2), 0, 2)
    assert min(exponents) > -0.1
    assert max(exponents) < 2.1
    assert abs(np.corrcoef(ratios, exponents)[0, 1]) < 0.2


def test_gain_is_one_factor():
    wave = rng_of(0).uniform(-0.3, 0.3, 1000).astype(np.float32)
    gains = []
    for seed in range(200):
        result = Augmentation(kinds=("gain",), probability=1)(wave, RATE, rng_of(seed))
        gains.append(result.std() / wave.std())
        np.testing.assert_allclose(result, wave * gains[-1], rtol=1e-5, atol=1e-7)
    assert_uniform(decibels(gains), -20, 10)


@pytest.mark.parametrize("peak", [1.0, 1.5])
def test_gain_never_clips_and_never_passes_full_scale_or_the_input(peak):
    wave = rng_of(0).uniform(-0.3, 0.3, 1000).astype(np.float32)
    wave[5] = -peak
    peaks = []
    for seed in range(30):
        result = Augmentation(kinds=("gain",), probability=1)(wave, RATE, rng_of(seed))
        peaks.append(np.abs(result).max())
        np.testing.assert_allclose(result, wave * (peaks[-1] / peak), rtol=1e-5)
    assert max(peaks) == np.float32(peak)
    assert sum(p == np.float32(peak) for p in peaks) > 3


def draws(codec: str, quality: float) -> SimpleNamespace:
    """A generator that chooses this codec and this quality, 0 to 1."""
    return SimpleNamespace(integers=lambda n: CODECS.index(codec), random=lambda: quality)


QUALITIES = (0.0, 0.5, 0.999)  # of a telephone: mu-law, A-law, GSM


def delay_of(result: np.ndarray, wave: np.ndarray) -> int:
    return correlate(result, wave, method="fft").argmax() - (len(wave) - 1)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("codec", CODECS)
def test_codecs_keep_length_and_time(codec, rate, speech):
    wave = soxr.resample(speech.astype(np.float64), RATE, rate)
    for samples in (1, 2, 100, rate // 10 + 1, 8000):
        result = augment.pass_codec(wave[-samples:], rate, draws(codec, 0.4))
        assert len(result) == samples
        assert np.isfinite(result).all()
    for quality in QUALITIES:
        result = augment.pass_codec(wave, rate, draws(codec, quality))
        assert len(result) == len(wave)
        assert abs(delay_of(result, wave)) <= rate / (1000 if codec == "telephone" else 5000)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("quality", QUALITIES)
def test_codecs_change_the_wave_and_keep_what_is_said(codec, quality, speech):
    result = augment.pass_codec(speech, RATE, draws(codec, quality))
    lowest = 0.7 if codec == "telephone" else 0.8  # a telephone leaves out the first harmonics
    assert lowest < np.corrcoef(result, speech)[0, 1] < 0.9999
    if codec != "telephone":
        assert result.std() == pytest.approx(speech.std(), rel=0.15)
    loud = augment.pass_codec(2 * speech, RATE, draws(codec, quality))  # with a peak of 1.8
    full = augment.pass_codec(speech / np.abs(speech).max(), RATE, draws(codec, quality))
    np.testing.assert_allclose(loud, full * 1.8, atol=1e-2)


def test_a_better_quality_is_nearer_to_the_wave(speech):
    for codec in ("mp3", "opus"):
        errors = [
            np.std(augment.pass_codec(speech, RATE, draws(codec, quality)) - speech) for quality in QUALITIES
        ]
        assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize(
    ("codec", "quality", "lowest", "highest"),
    [("mp3", 0, 65, 80), ("mp3", 0.999, 12, 17), ("opus", 0, 57, 63), ("opus", 0.999, 9, 13)],
)
def test_bit_rates(codec, quality, lowest, highest, speech, monkeypatch):
    read, sizes = soundfile.read, []

    def counted(file):
        sizes.append(len(file.getvalue()))
        return read(file)

    monkeypatch.setattr(soundfile, "read", counted)
    augment.pass_codec(speech, RATE, draws(codec, quality))
    assert lowest < sizes[0] * 8 / (len(speech) / RATE) / 1000 < highest  # kbit/s


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_telephone_passes_its_band_alone(quality):
    noise = 0.1 * rng_of(0).standard_normal(32000)
    result = augment.pass_codec(noise, RATE, draws("telephone", quality))
    frequencies = np.fft.rfftfreq(len(noise), 1 / RATE)
    passed = np.abs(np.fft.rfft(result)) ** 2 / (np.abs(np.fft.rfft(noise)) ** 2).mean()
    assert passed[frequencies > 3600].mean() < 0.02
    assert passed[frequencies < 200].mean() < 0.05
    assert passed[(frequencies > 500) & (frequencies < 3000)].mean() == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("quality", QUALITIES)
def test_overshoots_are_clipped_on_the_telephone(quality):
    """Of a square wave at full scale: the two that are passed of its harmonics reach further."""
    square = np.where(np.arange(16000) // 10 % 2, 1.0, -1.0)  # 800 Hz
    result = augment.pass_codec(square, RATE, draws("telephone", quality))
    assert np.corrcoef(result, square)[0, 1] > 0.9


def test_every_codec_has_its_share(monkeypatch):
    write, used = soundfile.write, []

    def noted(*args, **kwargs):
        used.append(kwargs["subtype"])
        return write(*args, **kwargs)

    monkeypatch.setattr(soundfile, "write", noted)
    for seed in range(270):
        augment.pass_codec(np.full(100, 0.1), RATE, rng_of(seed))
    counts = [used.count(name) for name in ("MPEG_LAYER_III", "OPUS", "ULAW", "ALAW", "GSM610")]
    assert scipy.stats.chisquare(counts, [90, 90, 30, 30, 30]).pvalue > 0.01


# -------------------------------------------------------------------- together

STEPS = {
    "change_speed": "speed",
    "rawboost": "rawboost",
    "add_coloured_noise": "noise",
    "pass_codec": "codec",
    "change_gain": "gain",
}


def test_kinds_are_applied_in_order_each_with_draws_of_its_own(speech, monkeypatch):
    """Whatever else is switched on, a kind is applied to the same clips with the same generator."""
    called = []

    def recorder(name):
        def step(wave, *args):
            called.append((name, args[-1].bit_generator.state["state"]["state"]))
            return wave

        return step

    for function, kind in STEPS.items():
        monkeypatch.setattr(augment, function, recorder(kind))
    for seed in range(20):
        called.clear()
        Augmentation(rawboost=1, kinds=KINDS)(speech, RATE, rng_of(seed))
        with_all = dict(called)
        assert [name for name, _ in called] == [name for name in STEPS.values() if name in with_all]
        assert len(set(with_all.values())) == len(with_all)
        for n in range(len(KINDS)):
            for kinds in itertools.permutations(KINDS, n):
                called.clear()
                Augmentation(rawboost=1, kinds=kinds)(speech, RATE, rng_of(seed))
                assert called == [(k, s) for k, s in with_all.items() if k in (*kinds, "rawboost")]


def test_another_kind_changes_nothing_in_the_noise(speech):
    wave = speech * np.float32(0.05)
    alone = Augmentation(kinds=("noise",), probability=1)(wave, RATE, rng_of(3))
    softer = Augmentation(kinds=("noise", "gain"), probability=1)(wave, RATE, rng_of(3))
    np.testing.assert_allclose(softer * (alone.std() / softer.std()), alone, atol=1e-6)
    assert abs(decibels(alone.std() / softer.std())) > 0.1


@pytest.mark.parametrize("probability", [0, 0.2, 0.5, 1])
def test_each_kind_is_applied_with_the_probability(probability, monkeypatch):
    called = []
    for function, kind in STEPS.items():
        monkeypatch.setattr(augment, function, lambda wave, *args, kind=kind: called.append(kind) or wave)
    augmentation = Augmentation(kinds=KINDS, probability=probability)
    for seed in range(300):
        augmentation(np.zeros(1, np.float32), RATE, rng_of(seed))
    for kind in KINDS:
        assert scipy.stats.binomtest(called.count(kind), 300, probability).pvalue > 0.01


def test_a_clip_depends_on_wave_and_generator_alone(speech):
    wave = speech[:8000]
    augmentation = Augmentation(rawboost=4, kinds=KINDS, probability=1)
    before, untouched = (np.random.get_state(), random.getstate()), wave.copy()  # noqa: NPY002
    first = augmentation(wave, RATE, rng_of(5))
    again = pickle.loads(pickle.dumps(augmentation))(wave, RATE, rng_of(5))
    after = (np.random.get_state(), random.getstate())  # noqa: NPY002
    assert str(before) == str(after)
    assert np.array_equal(before[0][1], after[0][1])
    assert np.array_equal(first, again)
    assert np.array_equal(wave, untouched)
    rng = rng_of(5)
    assert np.array_equal(first, augmentation(wave, RATE, rng))
    assert not np.array_equal(first[:7000], augmentation(wave, RATE, rng)[:7000])


def test_results_are_float32_and_within_full_scale(speech):
    wave = speech[8000:12000] / np.abs(speech[8000:12000]).max()
    peaks = []
    for rawboost, kinds in itertools.product(range(9), ((), ("speed", "noise"), KINDS)):
        for seed in range(3):
            result = Augmentation(rawboost, kinds, 1)(wave, RATE, rng_of(seed))
            assert result.dtype == np.float32
            assert np.isfinite(result).all()
            peaks.append(np.abs(result).max())
            assert len(result) == len(wave) or "speed" in kinds
    assert max(peaks) == 1
    assert min(peaks) > 0


def test_without_augmentation_nothing_changes(speech):
    for wave in (speech, speech * np.float32(3)):
        assert np.array_equal(Augmentation()(wave, RATE, rng_of(0)), wave)


@pytest.mark.parametrize("rawboost", [0, 1, 2, 3, 4, 8])
def test_silence_and_very_short_clips_pass(rawboost):
    augmentation = Augmentation(rawboost=rawboost, kinds=KINDS, probability=1)
    for samples in (1, 2, 3, 100, 3000):
        for seed in range(4):
            silence = augmentation(np.zeros(samples, np.float32), RATE, rng_of(seed))
            assert np.abs(silence).max() < 1e-3  # A-law and GSM have no zero
            short = augmentation(np.full(samples, 0.5, np.float32), RATE, rng_of(seed))
            assert np.isfinite(short).all()
            assert 0.9 * samples - 1 < len(short) < samples / 0.9 + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": ("noise", "reverb")}, "kinds must be some of speed, noise, codec, gain, not 'reverb'"),
        ({"rawboost": 9}, "rawboost must be 1 to 8, or 0 for none, not 9"),
        ({"rawboost": -1}, "not -1"),
        ({"probability": 1.5}, "not 1.5"),
        ({"probability": float("nan")}, "not nan"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**arguments)
    with pytest.raises(FrozenInstanceError):
        Augmentation().rawboost = 3
