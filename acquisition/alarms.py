"""Alarms latch: each stays until its cause is gone and somebody acknowledged it, and says what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from acquisition.errors import RequestRefused


@dataclass(frozen=True, slots=True)
class Alarm:
    """`active` while the cause lasts."""

    id: str
    raised_utc_ns: int
    severity: str
    text: str
    way_out: str
    active: bool = True
    acknowledged: bool = False


class AlarmBook:
    """The alarms that stand, by id."""

    def __init__(self) -> None:
        self._alarms: dict[str, Alarm] = {}

    def sound(self, id: str, text: str, way_out: str, utc_ns: int, severity: str = "alarm") -> bool:
        """Latch an alarm; True when it is news."""
        before = self._alarms.get(id)
        news = before is None or not before.active
        if news:
            self._alarms[id] = Alarm(id, utc_ns, severity, text, way_out)
        return news

    def cease(self, id: str) -> None:
        """The cause is gone; the alarm goes too once acknowledged."""
        if id in self._alarms:
            self._alarms[id] = replace(self._alarms[id], active=False)
            self._drop_settled()

    def acknowledge(self, id: str) -> None:
        """Raises `RequestRefused` for an alarm that does not stand."""
        if id not in self._alarms:
            raise RequestRefused(f"no alarm {id!r} stands; standing: {', '.join(self._alarms) or 'none'}")
        self._alarms[id] = replace(self._alarms[id], acknowledged=True)
        self._drop_settled()

    def tree(self) -> list[dict[str, Any]]:
        return [asdict(alarm) for alarm in self._alarms.values()]

    def _drop_settled(self) -> None:
        self._alarms = {id: a for id, a in self._alarms.items() if a.active or not a.acknowledged}
