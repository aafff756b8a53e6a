"""Adapters from an instrument's own protocol to acquisition's device protocols."""
