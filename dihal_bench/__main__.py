"""``python -m dihal_bench``: the command line, as launchers of several processes start it."""

from dihal_bench.cli.main import main
from dihal_bench.core.distributed import leave

if __name__ == "__main__":
    leave(main())
