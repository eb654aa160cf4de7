"""Writes the README's table of settings from `ingest_service.config.SETTINGS`; --check only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from ingest_service.config import PREFIX, SETTINGS

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- settings: made by `make format` -->\n", "<!-- end of settings -->\n"


def table() -> str:
    """Markdown, one row per setting."""
    rows = ["| Setting | Default | What it does |\n", "|---|---|---|\n"]
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else "(see text)"
        rows.append(f"| `{PREFIX}{setting.name}` | {default} | {setting.help} |\n")
    return "".join(rows)


def main() -> int:
    """The exit code is 1 when --check finds a difference."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    fresh = before + BEGIN + table() + END + after
    if "--check" in sys.argv[1:]:
        if fresh != text:
            sys.stderr.write(
                "README.md: the table of settings is not that of config/settings.py; run `make format`\n"
            )
            return 1
        return 0
    README.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
