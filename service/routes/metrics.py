"""What Prometheus scrapes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import Response
from prometheus_client.exposition import choose_encoder

from service.routes.shared import Wired

router = APIRouter(tags=["status"])


@router.get("/metrics", response_class=Response)
def metrics(wired: Wired, accept: Annotated[str, Header()] = "") -> Response:
    """Queues, drops, latencies and faults of all programs, as Prometheus text or OpenMetrics, by the Accept header.

    Needs the same key as all else, as a Bearer token: Prometheus reads it from the file that `[serve] key_file` names
    (`deploy/prometheus.yml`). Answers at once from what the service last heard, also when the node
    is silent: then `eclips_node_up` is 0 and the node's own metrics are missing.
    """
    encode, media_type = choose_encoder(accept)
    return Response(encode(wired.metrics), headers={"Content-Type": media_type})
