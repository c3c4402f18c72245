"""``python -m retrieval_detect`` is ``rd``."""

from __future__ import annotations

import sys

from retrieval_detect.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
