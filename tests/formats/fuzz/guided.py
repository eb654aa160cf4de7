"""One reader under atheris: mutations that are led by which lines and branches they reach."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["ingest_service.formats"]):
    from tests.formats.fuzz.__main__ import keep
    from tests.formats.fuzz.properties import check


def main() -> None:
    """`python -m tests.formats.fuzz.guided READER [libFuzzer's arguments]`."""
    kind = sys.argv[1]

    def one_input(data: bytes) -> None:
        try:
            check(kind, data)
        except BaseException:
            keep(kind, data)
            raise

    atheris.Setup([sys.argv[0], *sys.argv[2:]], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
