"""The simulated microscope: one physical truth (world.py) and one file per simulated device."""
