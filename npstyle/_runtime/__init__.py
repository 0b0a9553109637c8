"""What the arithmetic is built on, and a reader can skip: memory, threads, files."""
