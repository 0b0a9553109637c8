"""`npstyle studio`: a page in the browser where one sees a picture being painted.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import threading
import webbrowser
from contextlib import suppress

from npstyle._runtime.paths import as_path
from npstyle.cli.arguments import command_parser, integer
from npstyle.cli.interrupts import Signals
from npstyle.cli.session import warn_if_slow
from npstyle.cli.terminal import DONE, INTERRUPTED, print_err, print_out
from npstyle.errors import UserError

SOURCES = ("auto", "imagenet", "8bit", "random")  # of filters, beside files
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(argv: list[str]) -> int:
    """Serve the page until Ctrl-C, and return the exit status."""
    text = "Open a page in the browser where pictures are chosen, and seen while they are painted."
    parser = command_parser("studio", text)
    add = parser.add_argument
    add("--no-browser", action="store_true", help="print the page's address only")
    text = "where pictures are kept (npstyle/studio in the folder for a user's data)"
    add("--folder", type=as_path, metavar="FOLDER", help=text)
    text = "the address to listen at; other machines can reach the page, if it is not 127.0.0.1 (127.0.0.1)"
    add("--host", default="127.0.0.1", metavar="ADDRESS", help=text)
    add("--port", type=integer(0), default=0, metavar="N", help="the port to listen at (one that is free)")
    text = "filters: auto, imagenet, 8bit, random or a file (auto)"
    add("--weights", default="auto", metavar="W", help=text)
    add("--threads", type=integer(1), metavar="N", help="threads (all cores available, or OMP_NUM_THREADS)")
    options = parser.parse_args(argv)
    require_extra("npstyle studio")
    _check_weights(options.weights)
    from npstyle.studio.folder import default_folder
    from npstyle.studio.server import Server

    warn_if_slow(options.threads)
    folder = options.folder or default_folder()
    server = Server(folder, options.host, options.port, options.weights, options.threads, True)
    print_err(f"pictures are kept in {folder}; Ctrl-C ends the studio, and the next one continues")
    if options.host not in LOOPBACK:
        print_err(
            "npstyle: --host: other machines can reach this page. Whoever has the address below with its "
            "token can use it, and the connection is not encrypted: give it to nobody you do not trust"
        )
    print_out(server.url)
    if not options.no_browser:
        threading.Timer(0.5, webbrowser.open, [server.url]).start()
    with Signals() as signals, suppress(KeyboardInterrupt):  # uvicorn raises it at the end
        server.run()
    return DONE if signals.status == INTERRUPTED else signals.status  # Ctrl-C is how it ends


def _check_weights(source: str) -> None:
    """Look at the filters now if they are a file: otherwise the page would be filled in, in vain."""
    from npstyle.weights import load_weights

    if source not in SOURCES:
        load_weights(source, deepest="conv1_1")


def require_extra(name: str) -> None:
    """Raise UserError unless what the extra `studio` installs is there; `name` is what needs it."""
    try:
        import starlette
        import uvicorn
    except ImportError as error:
        cure = "pip install 'npstyle[studio]', or of a checkout pip install -e '.[studio]'"
        raise UserError(name, f"no {error.name}", "starlette and uvicorn", cure) from error
    del starlette, uvicorn
