"""The web page in a real browser, Debian's chromium: what a user does and sees."""

import csv
import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import tone, write_zip
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from serving import served, write_calibrated

from antispoofing.commands.tasks import STAND_IN
from antispoofing.project import SAMPLES

REAL = SAMPLES / "custom/Real/austen-reader-1.flac"
FAKE = SAMPLES / "custom/Fake/festival-hts-slt-3.flac"
ANSWER = 60_000  # milliseconds to wait for an answer on a busy machine


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    options = ("--checkpoint", str(STAND_IN), write_calibrated(folder), "--max-megabytes", "2")
    with served(folder, *options, "--max-files", "30") as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Start a browser whose microphone plays a sample over and over."""
    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    wave, rate = soundfile.read(FAKE)
    soundfile.write(heard, wave, rate)
    options = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={heard}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(server, browser):
    with browser.new_context(viewport={"width": 1280, "height": 900}, permissions=["microphone"]) as context:
        yield opened(context, server)


def opened(context, server) -> Page:
    """Open the page; record its requests, its errors and its failed responses."""
    page, asked, errors = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server.address)
    expect(page.get_by_role("button", name="Judge")).to_be_visible(timeout=ANSWER)
    page.on("response", lambda response: errors.append(response.url) if response.status >= 400 else None)
    page.asked, page.errors = asked, errors
    return page


def judge(page, *files):
    page.locator("input[type=file]").first.set_input_files(list(files))
    for file in files:
        expect(
            page.get_by_label(Path(file).name).or_(page.get_by_text(Path(file).stem)).first
        ).to_be_visible()
    page.get_by_role("button", name="Judge").click()


def heading(page, name):
    expect(page.get_by_role("heading", name=name)).to_be_visible(timeout=ANSWER)


def test_a_real_and_a_synthetic_recording(page):
    judge(page, REAL)
    heading(page, REAL.name)
    verdict = page.locator("section.judged")
    score = float(re.search(r"Score (-?\d+\.\d+) \(higher = more likely real\)", verdict.inner_text())[1])
    assert score > 0
    page.get_by_label("Clear").first.click()
    judge(page, FAKE)
    heading(page, FAKE.name)
    expect(verdict.get_by_role("heading")).to_have_text("✗ Leans towards fake")
    assert "No probability: this detector is not calibrated." in verdict.inner_text()
    verdict.get_by_text("The detector: stand-in").click()
    expect(verdict.get_by_role("definition").filter(has_text="EER 5.9 %")).to_be_visible()
    expect(verdict.get_by_text("This detector is a small stand-in")).to_be_visible()
    picture = page.locator("img[alt^=Waveform]")
    assert picture.evaluate("image => image.naturalWidth") > 600
    assert len(picture_colours(picture.screenshot())) > 100
    durations = page.locator(".result audio").evaluate_all(
        "players => Promise.all(players.map(player => player.readyState ? player.duration :"
        " new Promise(done => player.onloadedmetadata = () => done(player.duration))))"
    )
    assert durations == pytest.approx([soundfile.info(FAKE).duration] * 2, abs=0.01)
    assert not page.errors
    assert all(url.startswith((page.url.rstrip("/"), "data:", "blob:")) for url in page.asked)


def picture_colours(png) -> set:
    with Image.open(io.BytesIO(png)) as image:
        return set(map(tuple, np.asarray(image.convert("RGB")).reshape(-1, 3)))


def test_two_detectors_side_by_side(page):
    page.get_by_label("calibrated").check()
    judge(page, REAL)
    heading(page, REAL.name)
    expect(page.locator("section.judged")).to_have_count(2)
    expect(page.locator("section.judged").nth(1)).to_contain_text("Probability that it is real")


def test_an_example_by_keyboard_alone(page):
    """Tab reaches everything, and Enter activates it."""
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.innerText || document.activeElement.ariaLabel || ''")
        )
        if reached[-1].strip() == "A person, with a machine in between":
            break
    assert any(name.strip() == "Judge" for name in reached)
    assert reached[-1].strip() == "A person, with a machine in between"
    page.keyboard.press("Enter")
    heading(page, "a-machine-in-between.flac")
    expect(page.get_by_text("leans towards synthetic, lowest margin").first).to_be_visible()
    before = page.evaluate("document.activeElement.tagName")
    for _ in range(20):
        page.keyboard.press("Tab")
        before += page.evaluate("document.activeElement.tagName")
    assert "AUDIO" in before
    assert "SUMMARY" in before


def test_the_windows_as_csv(page, tmp_path):
    soundfile.write(tmp_path / "long.wav", tone(20, 16000), 16000)
    judge(page, tmp_path / "long.wav")
    heading(page, "long.wav")
    with page.expect_download() as download:
        page.get_by_role("link", name="All windows as CSV").click()
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert float(rows[-1]["end_seconds"]) == 20


def test_several_files(page, tmp_path):
    (tmp_path / "no sound.mp3").write_text("this is not sound")
    judge(page, REAL, FAKE, tmp_path / "no sound.mp3")
    expect(page.locator(".result tbody tr")).to_have_count(3, timeout=ANSWER)
    expect(page.locator(".result tbody tr").nth(1)).to_contain_text("✗ fake")
    expect(page.locator(".result tbody tr").nth(2)).to_contain_text("not scored: ffmpeg: Invalid data")
    with page.expect_download() as download:
        page.get_by_role("link", name="All scores as CSV").click()
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [REAL.name, FAKE.name, "no sound.mp3"]


def test_a_zip_with_real_and_fake(page, tmp_path):
    clips = {}
    for folder in ("Real", "Fake"):
        for path in sorted((SAMPLES / "custom" / folder).iterdir())[:10]:
            clips[f"set/{folder}/{path.name}"] = path.read_bytes()
    judge(page, write_zip(tmp_path / "set.zip", clips))
    heading(page, "stand-in")
    expect(page.get_by_text("How good is it?")).to_be_visible()
    expect(page.locator(".pictures img")).to_have_count(3)
    assert "AUC [95 %]" in page.locator("pre").first.inner_text()


def test_what_cannot_be_judged_gets_a_message_and_the_page_still_works(page, tmp_path):
    (tmp_path / "text.wav").write_text("this is not sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "large.wav").write_bytes(bytes(3_000_000))
    page.get_by_role("button", name="Judge").click()
    toast(page, "upload a recording, or record one, first")
    for name, words in (("text.wav", "text.wav cannot be read"), ("empty.wav", "empty.wav cannot be read")):
        judge(page, tmp_path / name)
        toast(page, words)
        page.get_by_label("Clear").first.click()
    page.locator("input[type=file]").first.set_input_files(tmp_path / "large.wav")
    toast(page, "maximum")
    assert str(tmp_path) not in page.inner_text("body")
    page.reload()
    judge(page, FAKE)
    heading(page, FAKE.name)


def toast(page, words):
    """Wait for a message, and close it."""
    message = page.get_by_test_id("toast-body").filter(has_text=words)
    expect(message).to_be_visible(timeout=ANSWER)
    message.get_by_role("button").first.click()
    expect(message).not_to_be_visible()


def test_the_microphone(page):
    page.get_by_role("button", name="Record").click()
    page.wait_for_timeout(2500)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_test_id("waveform-Or record one").or_(page.locator("#waveform")).first).to_be_visible()
    page.wait_for_timeout(1000)
    page.get_by_role("button", name="Judge").click()
    expect(page.locator("section.judged")).to_be_visible(timeout=ANSWER)
    expect(page.get_by_text("(minutes:seconds)")).to_contain_text(re.compile(r"0:0[123]\.\d"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits(server, browser, scheme, width):
    """Nothing is wider than the screen, and text stands out from what is behind it."""
    phone = {"is_mobile": True, "has_touch": True} if width < 500 else {}
    viewport = {"width": width, "height": 844}
    with browser.new_context(viewport=viewport, color_scheme=scheme, **phone) as context:
        page = opened(context, server)
        page.get_by_role("button", name="A person, with").click()
        heading(page, "a-machine-in-between.flac")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        expect(page.locator("section.judged")).to_be_in_viewport()
        colours = page.locator("section.judged p").first.evaluate(
            "text => [getComputedStyle(text).color, getComputedStyle(document.body).backgroundColor]"
        )
        light = [luminance(colour) for colour in colours]
        contrast = (max(light) + 0.05) / (min(light) + 0.05)
        assert contrast > 4.5  # WCAG 2.2, level AA
        assert (light[1] < 0.2) == (scheme == "dark")
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=f"{folder}/{scheme}-{width}.png", full_page=True)


def luminance(colour: str) -> float:
    """Return the relative luminance of "rgb(r, g, b)", as WCAG 2.2 defines it."""
    values = np.array([float(value) / 255 for value in re.findall(r"[\d.]+", colour)[:3]])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
