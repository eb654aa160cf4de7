"""`python -m model_ingest.cli` is `model-ingest`."""

from __future__ import annotations

from model_ingest.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
