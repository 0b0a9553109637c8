"""Makes this folder the package npstyle._registry, so that an installed npstyle carries registry.json."""
