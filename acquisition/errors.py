"""One rooted error tree. `RequestRefused` means try another request; `ComponentFailed` means the part is gone."""

from __future__ import annotations

from collections.abc import Sequence


class EclipsError(Exception):
    """Root of every error raised on purpose; its text names the value, the limit and the way out."""


class RequestRefused(EclipsError):
    """This request cannot be done as asked; nothing was sent and nothing changed."""

    def __init__(self, reason: str, *, permitted: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.permitted = tuple(permitted)


class ChangedMeanwhile(RequestRefused):
    """What the request was meant for is no longer as it was: `changes` since, the oldest first; `tag` is of now."""

    def __init__(self, reason: str, *, changes: Sequence[str], tag: str) -> None:
        super().__init__(reason)
        self.changes = tuple(changes)
        self.tag = tag


class LimitExceeded(RequestRefused):
    """A setpoint lies outside its limits. `value` and `limit` are in the unit of `setting`'s suffix."""

    def __init__(self, reason: str, *, value: float, limit: float, setting: str) -> None:
        super().__init__(reason)
        self.value = value
        self.limit = limit
        self.setting = setting


class BadInput(RequestRefused):
    """A file or value from outside cannot be used as it is."""


class MessageRejected(EclipsError):
    """A message on the wire failed a check; the consumer drops and counts it."""


class ComponentFailed(EclipsError):
    """A part of the system no longer works: a device, a socket, a disk."""


class DeviceFailed(ComponentFailed):
    """A device did not answer in time, or answered what it must not."""


class RecordingFailed(ComponentFailed):
    """The recorder could not make data durable; the run must stop."""
