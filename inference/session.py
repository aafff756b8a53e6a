"""The only import of onnxruntime: graphs loaded on the provider that is really there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from acquisition.errors import BadInput, ComponentFailed
from inference.registry import Slot

PROVIDERS = {
    "auto": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "cuda": ("CUDAExecutionProvider",),
    "cpu": ("CPUExecutionProvider",),
}
SHORT_NAMES = {"CUDAExecutionProvider": "CUDA", "CPUExecutionProvider": "CPU"}
ERRORS_ONLY = 3
FATAL_ONLY = 4

# Where CUDA is compiled in but its libraries are missing, the runtime prints pages about it for every graph; what
# really is in use is asked of the session and told by us.
ort.set_default_logger_severity(FATAL_ONLY)


class OnnxSession:
    """One graph in one slot. `provider` says what it really runs on, which is not always what was asked for."""

    def __init__(self, path: Path, slot: Slot, provider: str = "auto", threads: int = 0) -> None:
        if provider not in PROVIDERS:
            raise BadInput(f"provider {provider!r} is unknown; known: {', '.join(PROVIDERS)}")
        wanted = [name for name in PROVIDERS[provider] if name in ort.get_available_providers()]
        options = ort.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = threads
        try:
            self._session = ort.InferenceSession(str(path), options, providers=wanted or ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own many types, all meaning: this graph does not load
            raise ComponentFailed(f"{path} cannot be loaded: {error}") from error
        used = self._session.get_providers()[0]
        if provider == "cuda" and used != "CUDAExecutionProvider":
            raise ComponentFailed(
                "CUDA was asked for but cannot be used here: install the extra `cuda` (and an NVIDIA driver), "
                "or set inference.provider to auto or cpu"
            )
        self.provider = SHORT_NAMES.get(used, used)
        self._slot = slot
        names = tuple(value.name for value in self._session.get_inputs())
        outputs = tuple(value.name for value in self._session.get_outputs())
        if set(names) - set(slot.inputs) or outputs != slot.outputs:
            raise ComponentFailed(f"{path} does not fit its slot: it has {names} -> {outputs}, the slot {slot}")
        self._inputs = names

    def run(self, values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name. `values` may hold more than the graph takes."""
        feed = {name: np.asarray(values[name]) for name in self._inputs}
        return dict(zip(self._slot.outputs, self._session.run(None, feed), strict=True))
