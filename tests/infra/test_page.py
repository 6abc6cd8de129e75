"""The page in a real browser: it asks, shows the answer with its source, and draws what waits."""

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=6000",
    "--window-size=1280,800",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")


def rendered(url: str, profile: Path, *more: str) -> str:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *more, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False).stdout


def test_the_page_names_its_creator_its_voice_and_what_memory_holds(up, tmp_path: Path) -> None:
    url, _ = up

    dom = rendered(url, tmp_path / "profile", "--dump-dom")

    assert "Ada’s understudy" in dom
    assert "smollm2-135m-instruct" in dom
    assert "<dt>exchanges</dt>" in dom


def test_the_page_asks_no_other_host_for_anything(up) -> None:
    import httpx

    for path in ("/", "/desk.css", "/desk.js"):
        text = httpx.get(up[0] + path).text
        assert "http://" not in text
        assert "https://" not in text.replace("/^https?:/", "")
