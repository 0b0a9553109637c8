"""`npstyle gradcheck`: check every derivative numerically, and see what a planted mistake looks like."""

from __future__ import annotations

import argparse

from npstyle.cli.session import warnings_as_lines
from npstyle.cli.terminal import DONE, FAILED, Parser, print_out
from npstyle.gradcheck import BOUNDS
from npstyle.study.checks import CHECK_NAMES, CHECKS, Check
from npstyle.study.mistakes import MISTAKES, planted


def main(argv: list[str]) -> int:
    """Run the checks that the arguments after `npstyle gradcheck` name, and return the exit status."""
    options = _parser().parse_args(argv)
    if options.list:
        _print_list()
        return DONE
    if options.mistake:
        print_out(f"planted: {options.mistake}: {MISTAKES[options.mistake].about}")
    checks = [check for check in CHECKS if check.name in (options.names or CHECK_NAMES)]
    print_out(f"{'check':22}{'method':13}{'analytic':>18}{'numeric':>18}{'error':>9}{'bound':>8}  verdict")
    with warnings_as_lines(), planted(options.mistake):
        wrong = sum(not _passes(check) for check in checks)
    count = f"{len(checks)} check" + "s" * (len(checks) != 1)
    print_out(f"{count}, {wrong} failed" if wrong else f"{count}, all right")
    return FAILED if wrong else DONE


def _parser() -> Parser:
    parser = Parser(
        prog="npstyle gradcheck",
        description="Compare every derivative with its function, in float64.",
        epilog="Exit status: 0 all gradients are right, 1 one is wrong (also with --break), 2 wrong usage.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("names", metavar="CHECK", nargs="*", type=_check_name, help="a check of --list (all of them)")
    add(
        "--break", dest="mistake", metavar="MISTAKE", choices=MISTAKES, help="plant a mistake of --list first"
    )
    add("--list", action="store_true", help="list the names of checks and mistakes")
    return parser


def _check_name(text: str) -> str:
    if text not in CHECK_NAMES:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected one of {', '.join(CHECK_NAMES)}")
    return text


def _print_list() -> None:
    print_out("checks:")
    for check in CHECKS:
        print_out(f"  {check.name:26}{check.method:13}{check.about}".rstrip())
    print_out("mistakes, for --break:")
    for name, mistake in MISTAKES.items():
        print_out(f"  {name:26}{mistake.about}")


def _passes(check: Check) -> bool:
    """Run a check, and print a line about it."""
    analytic, numeric = compared = check.compare()
    bound = BOUNDS[check.method]
    passes = compared.error < bound  # False for NaN
    print_out(
        f"{check.name:22}{check.method:13}{analytic:18.10g}{numeric:18.10g}"
        f"{compared.error:9.0e}{bound:8.0e}  {'right' if passes else 'WRONG'}"
    )
    return passes
