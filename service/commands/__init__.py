"""The commands of `eclips`, one file per kind of work."""
