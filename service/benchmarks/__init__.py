"""`eclips bench`: fixed rows, peers measured in the same run, printed for people and written for programs."""

from service.benchmarks.runner import run_benchmark

__all__ = ["run_benchmark"]
