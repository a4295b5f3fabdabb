"""Where and when sweeps run: the command line."""
