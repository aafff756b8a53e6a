"""The only import of onnxruntime: graphs loaded on the provider that is really there."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from acquisition.errors import BadInput, ComponentFailed
from inference.registry import TENSORS, Slot

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
PROVIDERS = {"auto": (CUDA, CPU), "cuda": (CUDA,), "cpu": (CPU,)}
SHORT_NAMES = {CUDA: "CUDA", CPU: "CPU"}
ERRORS_ONLY = 3
FATAL_ONLY = 4

# Where CUDA is compiled in but its libraries are missing, the runtime prints pages about it for every graph; what
# really is in use is asked of the session and told by us.
ort.set_default_logger_severity(FATAL_ONLY)


class OnnxSession:
    """One graph in one slot. `provider` says what it really runs on, which is not always what was asked for.

    `threads` 0 leaves the choice to the runtime: one for each core. Raises `BadInput` for an unknown provider or a
    negative number of threads, `ComponentFailed` when the graph does not load, does not fit its slot (`TENSORS`), or
    CUDA was asked for alone and cannot be used.
    """

    def __init__(self, path: Path, slot: Slot, provider: str = "auto", threads: int = 0) -> None:
        if provider not in PROVIDERS:
            raise BadInput(f"provider {provider!r} is unknown (inference.provider); known: {', '.join(PROVIDERS)}")
        if threads < 0:
            raise BadInput(f"{threads} threads (inference.threads): give 0 for one per core, or a number above")
        wanted = [name for name in PROVIDERS[provider] if name in ort.get_available_providers()]
        options = ort.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = threads
        # Three graphs take turns on the same cores, beside detector and recorder: threads that spin while they wait
        # would take the cores from those that work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A plan of all maps for each size of frame would keep 300 MB of memory more at 1024 x 1024, and save no time.
        options.enable_mem_pattern = False
        try:
            self._session = ort.InferenceSession(str(path), options, providers=wanted or [CPU])
        except Exception as error:  # onnxruntime raises its own many types, all meaning: this graph does not load
            raise ComponentFailed(f"{path} cannot be loaded: {error}") from error
        used = self._session.get_providers()[0]
        if provider == "cuda" and used != CUDA:
            raise ComponentFailed(
                "CUDA was asked for but cannot be used here: install the extra `cuda` (and an NVIDIA driver), "
                "or set inference.provider to auto or cpu"
            )
        self.provider = SHORT_NAMES.get(used, used)
        self._path = path
        self._slot = slot
        self._inputs = tuple(value.name for value in self._session.get_inputs())
        self._check_fit()

    def run(self, values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name. `values` may hold more than the graph takes. Raises `ComponentFailed` when it cannot run."""
        try:
            feed = {name: np.asarray(values[name]) for name in self._inputs}
            return dict(zip(self._slot.outputs, self._session.run(None, feed), strict=True))
        except KeyError as error:
            raise ComponentFailed(f"{self._path.name} needs the input {error}, which nobody gave") from error
        except Exception as error:  # as above: out of memory, wrong shape, lost device
            raise ComponentFailed(f"{self._path.name} failed on {self.provider}: {error}") from error

    def _check_fit(self) -> None:
        outputs = tuple(value.name for value in self._session.get_outputs())
        strange = sorted(set(self._inputs) - set(self._slot.inputs))
        if strange or outputs != self._slot.outputs:
            raise ComponentFailed(
                f"{self._path} does not fit its slot: inputs that the slot does not have: {strange or 'none'}; "
                f"outputs {outputs}, the slot's are {self._slot.outputs}"
            )
        for value in (*self._session.get_inputs(), *self._session.get_outputs()):
            kind, axes = TENSORS[value.name]
            if value.type != f"tensor({kind})" or len(value.shape) != len(axes):
                raise ComponentFailed(
                    f"{self._path} does not fit its slot: {value.name} is {value.type} {value.shape}, "
                    f"the slot's is tensor({kind}) {list(axes)}"
                )


def _load_cuda_libraries() -> None:
    """From the packages of the extra `cuda`, where the runtime does not look by itself; it prints what it misses."""
    if CUDA in ort.get_available_providers() and hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


_load_cuda_libraries()
