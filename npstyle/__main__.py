"""python -m npstyle"""

import sys

from npstyle.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
