"""How a node stands, as one tree for pages and programs. Reading it changes nothing."""

from __future__ import annotations

import shutil
from typing import Any

from acquisition.node import AcquisitionNode
from acquisition.replay import ReplaySource
from acquisition.run_plan import Progress
from acquisition.stream import RESULT_RING_BYTES

NM2_PER_M2 = 1e18
MOST_BACKFILLS_TOLD = 20
"""A status must fit into a header."""


def status_tree(node: AcquisitionNode) -> dict[str, Any]:
    """State, run, disk, dose, devices, interlocks, workers, alarms and counters; SI units, names carry them."""
    machine, progress = node.machine, node.machine.progress
    return {
        "utc_ns": node.clock.now().utc_ns,
        "state": machine.state,
        "fault": machine.fault or None,
        "permitted": list(machine.permitted),
        "run": _run_tree(machine.state, progress) if progress else None,
        "backfill": [
            {"run_id": run_id, "heights": recorder.manifest.heights, "frames": recorder.frames}
            for run_id, recorder in list(node.recordings.awaiting.items())[:MOST_BACKFILLS_TOLD]
        ],
        "drops": {
            "skipped": node.stream.skipped,
            "rejected": node.stream.rejected,
            "refused": node.stream.refused,
            "stalled": node.stream.stalled,
        },
        "disk": _disk_tree(node, progress),
        "dose_electrons_per_nm2": progress.dose_electrons_per_m2 / NM2_PER_M2 if progress else 0.0,
        "figures": dict(node.latest_figures),
        "frame_age_s": _frame_age_s(node, progress),
        "devices": _device_trees(node),
        "interlocks": node.guard.tree(),
        "relay": node.relay.tree() if node.relay else None,
        "recipe": node.recipes.tree() if node.recipes else None,
        "control": node.driver.tree(),
        "workers": node.stream.workers(),
        "models": node.models.tree(),
        "alarms": node.guard.alarms.tree(),
        "simulated": node.lab.simulated,
        "counters": _counters_tree(node),
    }


def _counters_tree(node: AcquisitionNode) -> dict[str, Any]:
    """What grew since the node's start, how full its queues are, and what its disk takes: see `acquisition.counters`.

    `waiting` are recorded frames without a height, `leased` frames, recorded or not, that workers hold. `ring` is what
    recent frames and results hold of memory.
    """
    stream, times = node.stream, node.machine.recorder_times
    return {
        **node.counters.tree(),
        "queues": {"waiting": node.recordings.frames_without_height, "leased": stream.leased},
        "ring": {"bytes": stream.ring_bytes, "budget_bytes": node.settings.ring_bytes + RESULT_RING_BYTES},
        "sockets": {
            name: {"rejected": server.rejected, "errors": server.errors}
            for name, server in (("data", stream), ("control", node.control))
            if server is not None
        },
        "devices": {
            name: {"connects": at.connects, "readings": at.readings, "invalid": at.invalid_readings}
            for name, at in node.state.connections.items()
        },
        "recorder": {"write": times.write.tree(), "sync": times.sync.tree()},
        "restarts": node.settings.restarts,
    }


def _run_tree(state: str, progress: Progress) -> dict[str, Any]:
    recorder, source = progress.recorder, progress.plan.source
    replayed = None
    if isinstance(source, ReplaySource):
        replayed = {
            "run_id": source.recorded.manifest.run_id,
            "position": source.position,
            "total": source.total,
            "speed": source.speed,
            "missing": source.missing,
            "damaged": len(source.damaged),
        }
    return {
        "run_id": progress.run.run_id,
        "path": str(recorder.folder) if recorder else None,
        "recording": recorder is not None and state == "acquiring",
        "frames": progress.frames,
        "expected": progress.run.expected_frames,
        "fuse_frames": progress.run.fuse_frames,
        "heights": recorder.manifest.heights if recorder else None,
        "started_utc_ns": progress.run.utc_ns,
        "replayed": replayed,
    }


def _frame_age_s(node: AcquisitionNode, progress: Progress | None) -> float | None:
    if progress is None or progress.last_frame is None:
        return None
    return node.clock.now().seconds_since(progress.last_frame)


def _disk_tree(node: AcquisitionNode, progress: Progress | None) -> dict[str, Any]:
    folder = node.settings.runs_folder
    folder.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(folder).free
    hours_left = None
    if progress is not None and progress.recorder is not None and progress.frames > 1:
        segments, height, width = progress.run.shape
        elapsed_s = max(1e-3, (node.clock.now().monotonic_ns - progress.run.monotonic_ns) / 1e9)
        bytes_per_s = progress.frames * height * width * (2 * segments + 4) / elapsed_s
        hours_left = free_bytes / bytes_per_s / 3600
    return {
        "free_bytes": free_bytes,
        "low_space_bytes": node.settings.low_space_bytes,
        "hours_left": hours_left,
        "folder": str(folder),
    }


def _device_trees(node: AcquisitionNode) -> dict[str, Any]:
    now = node.clock.now()
    trees: dict[str, Any] = {}
    for kind, device in node.lab.kinds():
        connection = node.state.connections[device.name]
        limits = node.lab.limits.get(device.name, {})
        trees[device.name] = {
            "kind": kind,
            "connected": connection.connected,
            "reason": connection.reason,
            "gas": getattr(device, "gas", None),
            "tag": node.device_changes.tag(device.name) if node.device_changes else "",
            "readings": {},
            "limits": {
                name: {"low": limit.low, "high": limit.high, "setting": limit.setting} for name, limit in limits.items()
            },
        }
    for channel, reading in node.state.latest().items():
        name, quantity = channel.split(".", 1)
        trees[name]["readings"][quantity] = {
            "value": reading.value if reading.valid else None,
            "valid": reading.valid,
            "age_s": now.seconds_since(reading.instant),
            "reason": reading.reason,
        }
    return trees
