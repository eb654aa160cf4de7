"""The service, without one of its syncs: `python -m tests.faults.power_cut_server`, the negative control.

NO_SYNC=1: fdatasync and fsync say "done" and do nothing.
"""

from __future__ import annotations

import os
import sys

from ingest_service.__main__ import main

if __name__ == "__main__":
    if os.environ.pop("NO_SYNC", ""):
        os.fdatasync = os.fsync = lambda descriptor: None  # type: ignore[assignment]
    sys.argv = ["ingest_service", "serve"]
    raise SystemExit(main())
