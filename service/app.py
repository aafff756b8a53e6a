"""The web application: page, REST and WebSockets over one acquisition node."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import zmq
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from acquisition.control_lock import ControlLock
from acquisition.errors import BadInput, ChangedMeanwhile, ComponentFailed, EclipsError, LimitExceeded, RequestRefused
from service.auth import COOKIE, KeyCheck, describe_security, needs
from service.control_link import ControlLink
from service.exchanges import Exchanges
from service.hub import Hub
from service.keys import KeyBook
from service.listening import check_nobody_listens
from service.metrics import Metrics, RequestMeter
from service.problems import PROBLEMS, problem
from service.routes import (
    adaptations,
    calibrations,
    control,
    devices,
    keys,
    live,
    metrics,
    models,
    plan,
    profiles,
    recipe,
    run,
    runs,
    status,
    tasks,
    track,
)
from service.routes.shared import Services
from service.run_control import RunControl
from service.settings import Settings
from service.standing import Standing
from service.tasks import TaskBook

PAGE = Path(__file__).parent / "page"
MAX_PROBLEMS = 10
PLOTLY = Path(str(files("plotly"))) / "package_data" / "plotly.min.js"


def create_app(settings: Settings, key: str) -> FastAPI:
    """The application for one node; `key` opens everything.

    Raises `BadInput` for a damaged file of other keys, and as
    `check_nobody_listens`.
    """
    check_nobody_listens(settings.serve)
    key_book = KeyBook(key, settings.runs_folder.with_name(f"{settings.runs_folder.name}-keys.json"))
    lock = ControlLock("with POST /api/v1/control")
    check = KeyCheck(key_book, lock)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        endpoints, curve = settings.stream.endpoints, settings.stream.keys
        hub = Hub(context, endpoints, curve)
        commands = RunControl(context, endpoints.control, curve)
        standing, work = Standing(hub, commands), TaskBook()
        seat = ControlLink(lock, hub, commands)
        app.state.services = Services(
            settings, hub, commands, standing, Metrics(hub), key_book, check, lock, seat, work
        )
        await hub.start()
        keeping = asyncio.create_task(seat.keep())
        yield
        keeping.cancel()
        await hub.stop()
        await asyncio.to_thread(work.close)
        commands.close()
        context.destroy(linger=200)

    app = FastAPI(title="eclips-live", version="1", lifespan=lifespan, openapi_url=None)
    for routes in (
        status,
        models,
        adaptations,
        plan,
        calibrations,
        run,
        recipe,
        runs,
        track,
        profiles,
        tasks,
        devices,
        live,
        metrics,
        control,
        keys,
    ):
        app.include_router(routes.router, prefix="/api/v1", dependencies=[Depends(check)], responses=PROBLEMS)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    app.add_middleware(Exchanges)
    app.add_middleware(RequestMeter)
    _add_front_door(app, check)
    _add_problems(app)
    return app


def _add_front_door(app: FastAPI, check: KeyCheck) -> None:
    @app.get("/", include_in_schema=False)
    def page(request: Request, key: str | None = None) -> Response:
        """The page; a key in the link is put into a cookie and taken out of the address bar."""
        if check.matches(key):
            response: Response = RedirectResponse("/", status_code=303)
            response.set_cookie(
                COOKIE, key or "", httponly=True, samesite="strict", secure=request.url.scheme == "https"
            )
            return response
        if not check.matches(request.cookies.get(COOKIE)):
            raise HTTPException(401, "open the link with the key that `eclips` printed in its terminal")
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/assets/plotly.min.js", include_in_schema=False)
    def plotly() -> Response:
        return FileResponse(PLOTLY, media_type="text/javascript", headers={"Cache-Control": "max-age=86400"})

    @app.get("/api/v1/health", tags=["status"], openapi_extra=needs(None))
    async def health() -> dict[str, str]:
        """The service itself is alive; needs no key."""
        return {"status": "ok"}

    @app.get("/api/v1/openapi.json", include_in_schema=False, dependencies=[Depends(check)])
    def openapi() -> dict[str, Any]:
        return app.openapi()

    plain = app.openapi
    app.openapi = lambda: describe_security(plain())  # type: ignore[method-assign]


def _add_problems(app: FastAPI) -> None:
    """Every error as problem+json (RFC 9457) with value, limit and what is permitted instead."""

    @app.exception_handler(EclipsError)
    async def eclips_error(_: Request, error: EclipsError) -> Response:
        status_code, title = _kind_of(error)
        extra: dict[str, Any] = {}
        if isinstance(error, LimitExceeded):
            value = error.value if math.isfinite(error.value) else str(error.value)
            extra = {"value": value, "limit": error.limit, "setting": error.setting}
        elif isinstance(error, ChangedMeanwhile):
            return problem(status_code, title, str(error), {"ETag": f'"{error.tag}"'}, changes=list(error.changes))
        elif isinstance(error, RequestRefused):
            extra = {"permitted": list(error.permitted)}
        return problem(status_code, title, str(error), **extra)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        return problem(error.status_code, "refused", str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        found = [f"{'.'.join(map(str, p['loc'][1:]))[:80]}: {p['msg']}" for p in error.errors()]
        more = f" and {len(found) - MAX_PROBLEMS} more" if len(found) > MAX_PROBLEMS else ""
        return problem(422, "invalid request", "; ".join(found[:MAX_PROBLEMS]) + more)

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        return problem(500, "failed", f"{type(error).__name__}: {error}")


def _kind_of(error: EclipsError) -> tuple[int, str]:
    match error:
        case LimitExceeded():
            return 422, "limit exceeded"
        case ChangedMeanwhile():
            return 412, "changed meanwhile"
        case BadInput():
            return 422, "invalid request"
        case RequestRefused():
            return 409, "refused in this state"
        case ComponentFailed():
            return 503, "a component does not answer"
        case _:
            return 500, "failed"
