"""The recorded run on disk: a folder that opens in Fiji and in Python as it is."""

from acquisition.recording.manifest import Manifest, find_runs
from acquisition.recording.reader import RecordedRun
from acquisition.recording.repair import repair
from acquisition.recording.verification import verify
from acquisition.recording.writer import Recorder

__all__ = ["Manifest", "RecordedRun", "Recorder", "find_runs", "repair", "verify"]
