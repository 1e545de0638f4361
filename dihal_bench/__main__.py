"""``python -m dihal_bench``: the command line, as launchers of several processes start it."""

import sys

from dihal_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
