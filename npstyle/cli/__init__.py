"""The command line. Nothing imports it; everything that computes lies below."""
