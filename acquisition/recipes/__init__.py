"""Recipes: setpoints, ramps, waits, marks and feedback over time, checked whole before the first of them is sent."""
