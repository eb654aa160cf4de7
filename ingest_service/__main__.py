"""`python -m ingest_service serve | migrate | check | sweep | rebuild`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import replace

from ingest_service.config import PREFIX, SETTINGS, SettingError, Settings, load_settings
from ingest_service.process import (
    StartError,
    StoreInUse,
    allow_many_descriptors,
    cannot_listen,
    check_addresses,
    tune_allocator,
)
from ingest_service.telemetry.logs import configure_logs
from ingest_service.workers import Supervisor, WorkerSide, beside, reserve

# `ingest_service.app` is imported where it is used, as what it needs: the parent of workers must not import
# grpc.

_WRONG_USE = 2
_BUSY = 1
_MAX_WORKERS = 64


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
        (
            "check",
            "print the settings in force, and warn of targets that cannot be used",
        ),
        ("sweep", "expire old uploads and remove unreferenced bytes, once, beside a running service"),
        ("rebuild", "the database is lost: list the stored blobs as models again, while no service runs"),
    ):
        added = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=_settings_help(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == "serve":
            added.add_argument(
                "--workers",
                type=_worker_count,
                default=1,
                metavar="N",
                help="so many processes share the port, data directory and database (default: 1); limits hold"
                " for each of them",
            )
            # What the parent of workers says to them.
            added.add_argument("--listen", default="", help=argparse.SUPPRESS)
            added.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
            added.add_argument("--prepared", action="store_true", help=argparse.SUPPRESS)
            added.add_argument("--worker", type=int, default=None, help=argparse.SUPPRESS)
        if name == "rebuild":
            _add_rebuild_options(added)
        if name == "sweep":
            added.add_argument("--dry-run", action="store_true", help="only say what would go")
            added.add_argument(
                "--beyond-brake", action="store_true", help="even more than a tenth of the store's bytes"
            )
    return parser


def _add_rebuild_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="sha256:HEX=NAME",
        help="list this blob under that name; may be repeated; a split model is named by its first shard",
    )
    parser.add_argument(
        "--names", metavar="FILE", help="the same from a file, one on each line; # begins a comment"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on each line")


def _worker_count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= _MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"it must be 1 to {_MAX_WORKERS}")
    return count


def _serve(settings: Settings, arguments: argparse.Namespace) -> int:
    allow_many_descriptors()
    if settings.allow_insecure and arguments.worker is None and not arguments.prepare:
        sys.stderr.write("warning: INGEST_ALLOW_INSECURE is set: anybody who can connect may push\n")
    if arguments.workers > 1:
        return _supervise(settings, arguments.workers)
    from ingest_service.app import prepare, serve

    if arguments.prepare:
        asyncio.run(prepare(settings))
        return 0
    tune_allocator()
    if arguments.listen:
        settings = replace(settings, listen=arguments.listen)
    worker = None
    if arguments.worker is not None:
        worker = WorkerSide()
        settings = replace(settings, metrics_listen=beside(settings.metrics_listen, arguments.worker))
    asyncio.run(serve(settings, worker, is_prepared=arguments.prepared))
    return 0


def _supervise(settings: Settings, count: int) -> int:
    try:
        # Held until the last worker has ended.
        held = reserve(settings.listen)
    except OSError as error:
        raise cannot_listen(settings.listen, error=error) from error
    command = ("-m", "ingest_service", "serve")
    with held.holder:
        if settings.metrics_listen:
            # Before anything is prepared: what the first worker found taken would stop all the others.
            own = [beside(settings.metrics_listen, number) for number in range(1, count + 1)]
            check_addresses((listen, "INGEST_METRICS_LISTEN") for listen in own)
        supervisor = Supervisor(command, count, listen=held.listen, drain_seconds=settings.drain_seconds)
        return asyncio.run(supervisor.run())


def _sweep(settings: Settings, arguments: argparse.Namespace) -> int:
    from ingest_service.app import sweep_once

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


def _rebuild(settings: Settings, arguments: argparse.Namespace) -> int:
    from ingest_service.app import Service
    from ingest_service.rebuilding import run

    return run(Service(settings), arguments)


def main() -> int:
    """The exit code: 0 done, 2 a setting or what it names cannot be used (one line on stderr says which)."""
    arguments = _parser().parse_args()
    command = arguments.command
    try:
        settings = load_settings()
        worker = arguments.worker if command == "serve" else None
        configure_logs(settings.log_level, settings.log_format, worker=worker)
        if command == "serve":
            return _serve(settings, arguments)
        elif command == "migrate":
            from ingest_service.store_opening import migrate_only

            before, after = asyncio.run(migrate_only(settings))
            sys.stdout.write(f"schema: {before or 'none'} -> {after}\n")
        elif command == "sweep":
            return _sweep(settings, arguments)
        elif command == "rebuild":
            return _rebuild(settings, arguments)
        else:
            lines = (f"{PREFIX}{name.upper()}={value}\n" for name, value in settings.public().items())
            sys.stdout.writelines(lines)
            sys.stdout.flush()
            from ingest_service.forwarding import Target
            from ingest_service.forwarding.checking import unusable_targets

            targets = [Target(t.name, t.url, t.headers, t.models_dir, t.ca) for t in settings.targets]
            for status in asyncio.run(unusable_targets(targets)):
                sys.stderr.write(f"warning: target {status.name}: {status.words}\n")
    except StoreInUse as error:
        sys.stderr.write(f"error: {error}\n")
        return _BUSY
    except (SettingError, StartError) as error:
        sys.stderr.write(f"error: {error}\n")
        return _WRONG_USE
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
