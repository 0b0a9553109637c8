"""python -m npstyle"""

import sys

from npstyle.cli import main

if __name__ == "__main__":
    sys.exit(main())
