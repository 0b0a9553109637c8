"""Solutions of docs/exercises; try them yourself first."""
