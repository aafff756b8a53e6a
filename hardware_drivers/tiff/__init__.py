"""Image files of all makers of microscopes: read, grouped into sets, and taken from a folder as they appear."""
