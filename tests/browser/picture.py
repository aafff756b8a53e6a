"""What a test sees of a canvas."""

from __future__ import annotations

from playwright.sync_api import Locator, Page


def fingerprint(canvas: Locator) -> str:
    """The pixels of a canvas as text: equal when it shows the same."""
    pixels: str = canvas.evaluate("canvas => canvas.toDataURL()")
    return pixels


def colours(canvas: Locator) -> int:
    """How many different colours are drawn: a canvas on which nothing is drawn has one."""
    count: int = canvas.evaluate(
        """canvas => new Set(new Uint32Array(
            canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size"""
    )
    return count


def wait_for_change(page: Page, canvas: Locator, before: str) -> None:
    """Until the canvas shows something else; times out with the page's patience."""
    page.wait_for_function("([canvas, before]) => canvas.toDataURL() !== before", arg=[canvas.element_handle(), before])


def drag(page: Page, canvas: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Press, move and let go; positions as shares of the element's box, once that stands still."""
    canvas.hover()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + start[0] * box["width"], box["y"] + start[1] * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + end[0] * box["width"], box["y"] + end[1] * box["height"], steps=5)
    page.mouse.up()
