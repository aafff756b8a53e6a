"""Vocabulary and data plane: what a frame is, how frames move, are kept and come back."""
