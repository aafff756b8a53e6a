"""What people and other programs touch: settings, wiring, command line, REST, page."""
