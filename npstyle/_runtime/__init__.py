"""What the arithmetic stands on and a reader can skip: memory, threads, files written whole."""
