"""The program, `npstyle` or `python -m npstyle`: Ctrl-C from the first moment to the last."""

import os
import signal
import sys
from contextlib import suppress

INTERRUPTED = 130


def main() -> int:
    """Run the command that the arguments name, and return its exit status.

    While modules are imported, an exception may come at a bad place: a compiled one makes "initialization
    failed" of it. So Ctrl-C ends the process at once until a command has something to save
    (`npstyle.cli.interrupts`).
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
        signal.signal(signal.SIGINT, _stop)
    from npstyle.cli.main import main as run_command

    status = run_command()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the rest is Python's
    return status


def _stop(*_: object) -> None:
    with suppress(OSError):  # a closed stream
        os.write(2, b"\nnpstyle: interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
