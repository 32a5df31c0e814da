"""The command line: `python -m reflect_rl --help`."""

import sys

from reflect_rl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
