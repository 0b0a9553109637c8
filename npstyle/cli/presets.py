"""`npstyle presets`: the recipes by name, as options."""

from __future__ import annotations

from npstyle.cli.arguments import command_parser
from npstyle.cli.recipe import RECIPE, field_of
from npstyle.cli.terminal import DONE, print_out
from npstyle.presets import PRESETS
from npstyle.settings import Settings, format_field

# Printed for every preset; other fields only where they differ from the default.
ALWAYS_PRINTED = ("content_layers", "style_layers", "content_weight", "style_weight")


def main(argv: list[str]) -> int:
    """Print each preset's options, and return the exit status."""
    command_parser("presets", "The recipes of --preset, option by option.").parse_args(argv)
    for name, settings in PRESETS.items():
        print_out(name)
        for option in RECIPE:
            field = field_of(option)
            if hasattr(settings, field) and (name == "default" or _is_printed(settings, field)):
                print_out(f"    --{option:<24}{format_field(settings, field)}")
    return DONE


def _is_printed(settings: Settings, field: str) -> bool:
    return field in ALWAYS_PRINTED or getattr(settings, field) != getattr(Settings(), field)
