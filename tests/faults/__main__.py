"""`python -m tests.faults`: injects every fault and prints what was lost, if anything was."""

import sys

if __name__ == "__main__":
    from tests.faults.table import main

    sys.exit(main())
