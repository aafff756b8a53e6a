"""Commands to an acquisition node: each has an id, a deadline and an idempotency key, each gets exactly one answer."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Annotated, Any

import zmq
from pydantic import Field, TypeAdapter, ValidationError

from acquisition import wire
from acquisition.allowed_keys import AllowedKeys
from acquisition.endpoints import CurveKeys
from acquisition.errors import (
    BadInput,
    ChangedMeanwhile,
    ComponentFailed,
    EclipsError,
    LimitExceeded,
    MessageRejected,
    RequestRefused,
)
from acquisition.socket_thread import SocketThread
from acquisition.sockets import ClientSocket, bind

log = logging.getLogger(__name__)

REMEMBERED_ANSWERS = 256
DEFAULT_DEADLINE_S = 10.0
MAX_REASON_CHARACTERS = 4000
HIGH_WATER_MARK = 100
SEND_INTERVAL_S = 0.5
MOST_DAMAGED = 3
Name = Annotated[str, Field(max_length=200)]


@dataclass(frozen=True, slots=True)
class Command:
    """`deadline_utc_ns`: not begun after it. A repeated `idempotency_key` gets the first one's answer again."""

    id: Name
    name: Name
    arguments: dict[str, Any]
    deadline_utc_ns: int
    idempotency_key: Name


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is done, refused (nothing changed; `details` says why and what is permitted) or failed."""

    id: str
    status: str
    value: Any = None
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)


Handler = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
"""Carries out a command by name; raises `RequestRefused` or any other `EclipsError`."""

_COMMAND = TypeAdapter(Command)
_ANSWER = TypeAdapter(Answer)
_DAMAGED = Answer("", "failed")
"""Stands for an answer that cannot be read."""


class ControlServer:
    """Takes commands on a socket thread and lets `handler` carry them out on the event loop. `rejected` messages were
    damaged, no commands, or of a client whose key is allowed no more."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        handler: Handler,
        loop: asyncio.AbstractEventLoop,
        keys: CurveKeys | None = None,
    ) -> None:
        self._socket = bind(context, zmq.ROUTER, address, keys, HIGH_WATER_MARK)
        self._allowed = None if keys is None else AllowedKeys(keys.peers)
        self._handler = handler
        self._loop = loop
        self._answers: OrderedDict[str, Future[Answer]] = OrderedDict()
        self.rejected = 0
        self._thread = SocketThread("control", context)
        self._thread.handle(self._socket, self._on_request)
        self._thread.start()

    def close(self) -> None:
        self._thread.close()

    @property
    def errors(self) -> int:
        """Calls of the socket thread that failed in a way nobody foresaw; each is in the log."""
        return self._thread.errors

    def _on_request(self) -> None:
        sender, *parts = self._socket.recv_multipart(copy=False)
        try:
            if self._allowed is not None and not self._allowed.admits(sender):
                raise MessageRejected("a command of a client whose key is allowed no more")
            if len(parts) != 1:
                raise MessageRejected(f"a command in {len(parts)} parts")
            command = _COMMAND.validate_python(wire.load_map(parts[0].buffer))
        except (MessageRejected, ValidationError) as error:
            self.rejected += 1
            log.warning("rejected a control message: %s", error)
            return
        identity = sender.bytes
        future = self._answers.get(command.idempotency_key)
        if future is None:
            future = asyncio.run_coroutine_threadsafe(self._carry_out(command), self._loop)
            self._answers[command.idempotency_key] = future
            while len(self._answers) > REMEMBERED_ANSWERS:
                self._answers.popitem(last=False)
        future.add_done_callback(lambda done: self._thread.post(lambda: self._reply(identity, command.id, done)))

    def _reply(self, identity: bytes, command_id: str, done: Future[Answer]) -> None:
        if not done.cancelled():
            answer = done.result()
            # A reason may repeat what a peer sent; the answer must still fit into a header.
            changes = {"id": command_id, "reason": answer.reason[:MAX_REASON_CHARACTERS]}
            self._socket.send_multipart([identity, wire.dump_map({**_ANSWER.dump_python(answer), **changes})])

    async def _carry_out(self, command: Command) -> Answer:
        late_s = (time.time_ns() - command.deadline_utc_ns) / 1e9
        if late_s > 0:
            reason = f"{command.name} came {late_s:.1f} s after its deadline and was not begun"
            return Answer(command.id, "refused", reason=f"{reason}; ask again, and if it stays so compare the clocks")
        try:
            return Answer(command.id, "done", value=await self._handler(command.name, command.arguments))
        except LimitExceeded as error:
            details = {"value": error.value, "limit": error.limit, "setting": error.setting}
            return Answer(command.id, "refused", reason=str(error), details=details)
        except ChangedMeanwhile as error:
            details = {"changes": list(error.changes), "tag": error.tag}
            return Answer(command.id, "refused", reason=str(error), details=details)
        except BadInput as error:
            return Answer(command.id, "refused", reason=str(error), details={"bad_input": True})
        except RequestRefused as error:
            return Answer(command.id, "refused", reason=str(error), details={"permitted": list(error.permitted)})
        except EclipsError as error:
            return Answer(command.id, "failed", reason=str(error))
        except Exception as error:
            log.exception("command %s", command.name)
            return Answer(command.id, "failed", reason=f"{command.name}: {type(error).__name__}: {error}")


class ControlClient:
    """Sends commands and waits for their answers. `rejected` messages were no answers. Use from one thread."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, keys: CurveKeys | None = None) -> None:
        self._address = address
        self._socket = ClientSocket(context, zmq.DEALER, address, keys, HIGH_WATER_MARK)
        self.rejected = 0

    def close(self) -> None:
        self._socket.close()

    def call(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, deadline_s: float = DEFAULT_DEADLINE_S
    ) -> Any:
        """The value of a command that was done.

        Raises `LimitExceeded`, `BadInput` or `RequestRefused` when it was refused, `ComponentFailed` when it failed or
        nobody answered in time, or three answers in a row were damaged.
        """
        command_id = uuid.uuid4().hex
        deadline_utc_ns = time.time_ns() + round(deadline_s * 1e9)
        command = Command(command_id, name, dict(arguments or {}), deadline_utc_ns, command_id)
        stop = time.monotonic() + deadline_s
        try:
            parts = [wire.dump_map(_COMMAND.dump_python(command))]
        except UnicodeEncodeError as error:
            raise BadInput(f"{name[:80]}: its arguments hold what is no text: {error}") from None
        size = len(parts[0])
        if size > wire.MAX_HEADER_BYTES:
            raise BadInput(f"{name[:80]} has {size} bytes of arguments, the limit is {wire.MAX_HEADER_BYTES}")
        sent_at_cut, damaged = None, 0
        while (left_s := stop - time.monotonic()) > 0:
            if sent_at_cut != self._socket.cuts:
                # What was under way when the line broke is sent again: its key has it done only once.
                if self._socket.send(parts, min(left_s, SEND_INTERVAL_S)):
                    sent_at_cut = self._socket.cuts
            elif (answer := self._receive(left_s)) is _DAMAGED:
                damaged += 1
                if damaged == MOST_DAMAGED:
                    raise ComponentFailed(
                        f"{damaged} answers of the acquisition node at {self._address} to {name[:80]} were damaged: "
                        "whether it was done, its status tells; has it the same version of eclips-live?"
                    )
                sent_at_cut = None  # it remembers its answer by the command's key, and does nothing twice
            elif answer is not None and answer.id == command_id:
                return _value_of(answer)
        raise ComponentFailed(self._silence(name, deadline_s))

    def _receive(self, timeout_s: float) -> Answer | None:
        parts = self._socket.receive(timeout_s)
        if parts is None:
            return None
        try:
            return _ANSWER.validate_python(wire.load_map(parts[0]))
        except (MessageRejected, ValidationError) as error:
            self.rejected += 1
            log.warning("rejected an answer: %s", error)
            return _DAMAGED

    def _silence(self, name: str, deadline_s: float) -> str:
        text = f"the acquisition node at {self._address} did not answer {name} within {deadline_s:g} s"
        return f"{text}: {self._socket.refused}" if self._socket.refused else text


def _value_of(answer: Answer) -> Any:
    if answer.status == "done":
        return answer.value
    if answer.status == "refused" and "limit" in answer.details:
        raise LimitExceeded(answer.reason, **answer.details)
    if answer.status == "refused" and "changes" in answer.details:
        raise ChangedMeanwhile(answer.reason, **answer.details)
    if answer.status == "refused" and "bad_input" in answer.details:
        raise BadInput(answer.reason)
    if answer.status == "refused":
        raise RequestRefused(answer.reason, permitted=answer.details.get("permitted", ()))
    raise ComponentFailed(answer.reason)
