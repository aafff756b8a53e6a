"""The report's page, section by section."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from acquisition.errors import BadInput
from service.report.facts import Facts, gather
from service.report.section import Section
from service.report.sections import SECTIONS

STYLE = Path(__file__).parent / "style.css"


def write_report(run: Path, out: Path, report: Callable[[int, int], None]) -> None:
    """One self-contained HTML file. Raises `BadInput` for a run without heights, or where `out` cannot be written."""
    facts = gather(run, report)
    page = _page(facts)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"the report cannot be written to {out}: {error}") from error


def report_task(run: Path, report: Callable[[int, int], None], into: Path) -> dict[str, Any]:
    """The report in the folder `into`; tells its name and size."""
    out = into / f"{run.name}-report.html"
    write_report(run, out, report)
    return {"file": out.name, "bytes": out.stat().st_size}


def _page(facts: Facts) -> str:
    manifest = facts.recorded.manifest
    name = escape(facts.recorded.path.name)
    sections = [section for make in SECTIONS if (section := make(facts)) is not None]
    contents = "".join(f'<a href="#s{n}">{escape(one.title)}</a>' for n, one in enumerate(sections))
    body = "".join(_section(number, section) for number, section in enumerate(sections))
    started = time.strftime("%d %B %Y, %H:%M UTC", time.gmtime(manifest.started_utc_ns / 1e9))
    simulated = '<span class="badge">simulated</span>' if manifest.simulated else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE.read_text(encoding='utf-8')}</style></head><body>"
        f'<header><p class="kicker">eclips-live · run report</p><h1>{name} {simulated}</h1>'
        f'<p class="lead">{escape(manifest.source)}, {started}'
        f"{f' · {escape(manifest.notes)}' if manifest.notes else ''}</p><nav>{contents}</nav></header>"
        f"<main>{body}</main><footer>Made {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} from run "
        f"<code>{escape(manifest.run_id)}</code>, digest of its frames <code>{escape(manifest.digest)}</code>. Numbers "
        "after ± are one standard deviation.</footer></body></html>"
    )


def _section(number: int, section: Section) -> str:
    about = f'<p class="about">{section.about}</p>' if section.about else ""
    return f'<section id="s{number}"><h2>{escape(section.title)}</h2>{about}{section.body}</section>'
