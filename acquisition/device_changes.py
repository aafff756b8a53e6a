"""What was sent to each device lately, so that nobody changes what somebody else has just changed."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from acquisition.clock import Clock
from acquisition.errors import ChangedMeanwhile

REMEMBERED = 20


class DeviceChanges:
    """A tag for each device, another one after everything that is sent to it, by people, recipes and interlocks alike.
    Tags of a node that was started again are new."""

    def __init__(self, devices: Iterable[str], clock: Clock) -> None:
        self._clock = clock
        self._start = secrets.token_hex(4)
        self._count = dict.fromkeys(devices, 0)
        self._texts: dict[str, deque[str]] = {name: deque(maxlen=REMEMBERED) for name in self._count}

    def tag(self, device: str) -> str:
        return f"{self._start}-{self._count[device]}"

    def note(self, device: str, text: str, only_if: Sequence[str] | None = None) -> None:
        """Just before `text` is sent. Raises `ChangedMeanwhile` when the device's tag is none of `only_if`."""
        if only_if is not None and self.tag(device) not in only_if:
            raise self._changed(device, only_if)
        at = datetime.fromtimestamp(self._clock.now().utc_ns / 1e9, UTC)
        self._count[device] += 1
        self._texts[device].append(f"{at:%H:%M:%S} UTC {text}")

    def _changed(self, device: str, known: Sequence[str]) -> ChangedMeanwhile:
        changes = self._since(device, known)
        return ChangedMeanwhile(
            f"{device} is not as you know it: {'; '.join(changes)}; nothing was sent: read it again, then decide",
            changes=changes,
            tag=self.tag(device),
        )

    def _since(self, device: str, known: Sequence[str]) -> list[str]:
        """From the newest of the known tags on."""
        count, texts = self._count[device], list(self._texts[device])
        ages = [age for age in range(1, count + 1) if f"{self._start}-{count - age}" in known]
        if not ages:
            return ["the tag is none of this node's: it was started again since, or it is of another device"]
        missed = ages[0] - len(texts)
        told = texts[-ages[0] :]
        return [f"{missed} changes that are not remembered", *told] if missed > 0 else told
