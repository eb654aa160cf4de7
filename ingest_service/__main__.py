"""`python -m ingest_service serve | migrate | check`."""

from __future__ import annotations

import argparse
import asyncio
import sys

from ingest_service.app import StartError, migrate_only, serve, sweep_once
from ingest_service.config import PREFIX, SETTINGS, SettingError, Settings, load_settings
from ingest_service.process import allow_many_descriptors, tune_allocator
from ingest_service.telemetry.logs import configure_logs

_WRONG_USE = 2
_BUSY = 1


def _settings_help() -> str:
    width = max(len(setting.name) for setting in SETTINGS) + len(PREFIX)
    lines = [
        f"  {PREFIX + setting.name:<{width}}  {setting.help} (default: {setting.default or 'none'})"
        for setting in SETTINGS
    ]
    return "\n".join(["settings, from the environment:", *lines])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ingest_service", description="The model ingest service.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("serve", "run the service until SIGTERM"),
        ("migrate", "bring the database's schema up to date"),
        ("check", "print the settings in force, if they can be read"),
        ("sweep", "expire old uploads and remove unreferenced bytes, once, beside a running service"),
    ):
        added = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=_settings_help(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == "sweep":
            added.add_argument("--dry-run", action="store_true", help="only say what would go")
            added.add_argument(
                "--beyond-brake", action="store_true", help="even more than a tenth of the store's bytes"
            )
    return parser


def _sweep(settings: Settings, arguments: argparse.Namespace) -> int:
    report = asyncio.run(sweep_once(settings, dry_run=arguments.dry_run, beyond_brake=arguments.beyond_brake))
    if report is None:
        sys.stderr.write("another process is sweeping; try again in a minute\n")
        return _BUSY
    would = "would be " if arguments.dry_run else ""
    sys.stdout.write(f"store: {settings.data_dir}\n")
    for name in report.expired_ingests:
        sys.stdout.write(f"ingest {would}expired: {name} ({report.sizes_bytes[name]} bytes)\n")
    for name in report.removed_blobs:
        sys.stdout.write(f"blob {would}removed: {name} ({report.sizes_bytes[name]} bytes)\n")
    sys.stdout.write(f"{sum(report.sizes_bytes.values())} bytes {would}removed\n")
    if report.stopped:
        sys.stderr.write(f"stopped: {report.stopped}\n")
        return _BUSY
    return 0


def main() -> int:
    """The exit code: 0 done, 2 a setting or what it names cannot be used (one line on stderr says which)."""
    arguments = _parser().parse_args()
    command = arguments.command
    try:
        settings = load_settings()
        configure_logs(settings.log_level, settings.log_format)
        if command == "serve":
            allow_many_descriptors()
            tune_allocator()
            if settings.allow_insecure:
                sys.stderr.write("warning: INGEST_ALLOW_INSECURE is set: anybody who can connect may push\n")
            asyncio.run(serve(settings))
        elif command == "migrate":
            before, after = asyncio.run(migrate_only(settings))
            sys.stdout.write(f"schema: {before or 'none'} -> {after}\n")
        elif command == "sweep":
            return _sweep(settings, arguments)
        else:
            lines = (f"{PREFIX}{name.upper()}={value}\n" for name, value in settings.public().items())
            sys.stdout.writelines(lines)
    except (SettingError, StartError) as error:
        sys.stderr.write(f"error: {error}\n")
        return _WRONG_USE
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
