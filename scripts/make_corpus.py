"""Writes the fuzzers' corpus, tests/formats/corpus, anew."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.formats.corpus_files import CORPUS, DIRECTORY


def main() -> int:
    """Makes one directory for each reader."""
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    for reader, files in CORPUS.items():
        (DIRECTORY / reader).mkdir(parents=True)
        for name, content in files.items():
            (DIRECTORY / reader / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
