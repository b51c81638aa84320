"""`python -m taskq_core` is the `taskq` command."""

import sys

from taskq_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
