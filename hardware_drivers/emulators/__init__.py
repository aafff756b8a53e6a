"""Instruments that speak their bytes on a line of ours, act on the simulated world, and misbehave when told to."""
