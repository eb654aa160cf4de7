"""The command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from model_ingest._connection import DEFAULT_SERVER, address
from model_ingest._files import ROLES

SERVER_VARIABLE = "MODEL_INGEST_SERVER"
_EPILOG = """exit codes: 0 done; 2 wrong use, or a local file that cannot be read; 3 refused by the server;
4 failed on a target; 5 could not reach the server, or lost it for good; 130 interrupted"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments, checked. Wrong use ends with SystemExit(2), as argparse does it."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.server = address(options.server or os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER)
    except ValueError as error:
        parser.error(str(error))
    if options.command == "push":
        _check_push(parser, options)
    if options.command in {"push", "import"} and options.store_only and options.target:
        parser.error("--store-only deploys nowhere: it cannot go with --target")
    return options


def _check_push(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not options.path and not options.role and options.modelfile is None:
        parser.error("name the files to push: PATH, --role or --modelfile")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="model-ingest",
        description="Push model files to a model ingest service and watch them arrive and run.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--version", action="version", version=f"model-ingest {metadata.version('model-ingest')}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--server",
        metavar="HOST:PORT",
        help=f"the service (default: ${SERVER_VARIABLE}, else {DEFAULT_SERVER})",
    )
    common.add_argument(
        "--json", action="store_true", help="one JSON object a line on stdout, nothing else there"
    )

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=summary, parents=[common], epilog=_EPILOG)

    _add_push(add("push", "send a model and follow it until it runs"))

    importing = add("import", "have the service take in a file of its import folder, and follow it")
    importing.add_argument("file", metavar="FILE", help="the file's name in the service's import/ folder")
    importing.add_argument("--name", required=True, help="the model's name on Ollama, e.g. llama3:8b")
    _add_targets(importing, "deploy to this target (none given: to all)")
    _add_store_only(importing)
    _add_detach(importing)

    watch = add("watch", "follow an ingest to its end")
    _add_ingest(watch)
    watch.add_argument(
        "--after", type=_number, default=0, metavar="N", help="only events with a higher number"
    )

    _add_ingest(add("status", "where an ingest stands now"))

    listing = add("ls", "list the models, or the ingests")
    listing.add_argument("--ingests", action="store_true", help="list ingests, newest first")
    listing.add_argument("--limit", type=_count, metavar="N", help="at most so many")

    _add_model(add("show", "one model: files, digests, where it runs"))
    _add_ingest(add("cancel", "stop an ingest"))

    retry = add("retry", "try again what failed on targets")
    _add_ingest(retry)
    _add_targets(retry, "only this target")
    _add_detach(retry)

    _add_model(add("verify", "read the stored bytes again and ask the targets"))

    deploy = add("deploy", "bring a stored model to more targets, and follow it until it runs")
    _add_model(deploy)
    _add_targets(deploy, "to this target (none given: to all)")
    _add_detach(deploy)

    remove = add("rm", "remove a model from the catalog, and from targets if asked")
    _add_model(remove)
    _add_targets(remove, "from this target as well")
    remove.add_argument("--all-targets", action="store_true", help="from every target it was deployed to")
    remove.add_argument(
        "--yes", action="store_true", help="do not ask, even if the model stays on targets that are not named"
    )

    add("targets", "the configured targets: do they answer?")
    return parser


def _add_push(push: argparse.ArgumentParser) -> None:
    push.add_argument(
        "path",
        type=Path,
        nargs="*",
        metavar="PATH",
        help="a model file, all shards of one, or a directory of shards or safetensors",
    )
    push.add_argument("--name", required=True, help="the model's name on Ollama, e.g. llama3:8b")
    push.add_argument(
        "--role",
        action="append",
        type=_role,
        default=[],
        metavar="ROLE=PATH",
        help=f"a file that is something else to the model: {', '.join(ROLES)}; may be repeated",
    )
    _add_targets(push, "deploy to this target (none given: to all)")
    push.add_argument(
        "--modelfile",
        type=Path,
        metavar="FILE",
        help="an Ollama Modelfile: its options, and its files (a PATH here stands in for its FROM)",
    )
    push.add_argument("--quantize", metavar="TYPE", help="have Ollama quantize to this, e.g. Q4_K_M")
    push.add_argument(
        "--draft-quantize", metavar="TYPE", help="have Ollama quantize the draft to this (0.30.0 to 0.34.0)"
    )
    _add_store_only(push)
    push.add_argument(
        "--declare-digest",
        action="store_true",
        help="hash first, unless the digest is remembered: bytes that are stored already are not sent",
    )
    push.add_argument(
        "--no-digest-cache",
        action="store_false",
        dest="digest_cache",
        help="neither use nor keep remembered digests of files",
    )
    _add_detach(push)


def _add_ingest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ingest", metavar="INGEST", help="ingests/ID, or ID")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the model's name")


def _add_targets(parser: argparse.ArgumentParser, summary: str) -> None:
    parser.add_argument(
        "--target", action="append", default=[], metavar="NAME", help=f"{summary}; may be repeated"
    )


def _add_store_only(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store-only", action="store_true", help="only keep the model, deploy it nowhere")


def _add_detach(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--detach", action="store_true", help="do not wait for the targets")


def _role(text: str) -> tuple[str, Path]:
    word, has_path, path = text.partition("=")
    if word.lower() not in ROLES or not has_path or not path:
        raise argparse.ArgumentTypeError(f"write ROLE=PATH, ROLE one of {', '.join(ROLES)}")
    return word.lower(), Path(path)


def _number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError("must be a whole number of at least 1")
    return number
