"""The report on paper: printed to PDF by an installed browser, as a person would print it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from acquisition.errors import BadInput

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge", "chrome")
MOST_SECONDS = 120.0


def print_pdf(page: Path, out: Path) -> None:
    """Raises `BadInput` without a Chromium or Chrome, and where it writes nothing."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise BadInput(f"no Chromium or Chrome was found to print with: open {page} in any browser and print it to PDF")
    # A browser that root runs has no sandbox to offer; the page is ours, and needs no network.
    rootless = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--disable-gpu", *rootless, f"--user-data-dir={profile}"]
        wanted = [f"--print-to-pdf={out.resolve()}", "--no-pdf-header-footer", page.resolve().as_uri()]
        try:
            done = subprocess.run(
                [*command, *wanted], capture_output=True, text=True, timeout=MOST_SECONDS, check=False
            )
            told = done.stderr.strip().splitlines()[-1:]
        except subprocess.TimeoutExpired:
            told = [f"nothing after {MOST_SECONDS:g} s"]
    if not out.is_file():
        raise BadInput(f"{browser} wrote no {out} ({' '.join(told)}): name a file in a folder that is")
