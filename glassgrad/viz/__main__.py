"""`python -m glassgrad.viz [FILE]`: open a record in the browser, or print it."""
from __future__ import annotations

import sys

from glassgrad.viz.cli import main

if __name__ == "__main__": sys.exit(main())
