"""TESCAN microscopes over SharkSEM: one session on two sockets, shared by a detector (with the column) and a stage."""

from hardware_drivers.sharksem.client import SharkSemSession
from hardware_drivers.sharksem.detector import SharkSemDetector
from hardware_drivers.sharksem.stage import SharkSemStage

__all__ = ["SharkSemDetector", "SharkSemSession", "SharkSemStage"]
