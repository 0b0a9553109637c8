"""Answers to the exercises in docs/exercises, to show that they can be solved. Readers: later."""
