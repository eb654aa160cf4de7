"""The JSON routes (contract section 1): request in, response or worker out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from . import names
from .blobs import InvalidDigest
from .create import create
from .create_request import APIError, check, decode
from .eras import Era
from .exchange import error_response, json_response
from .golang import quote
from .http import Response
from .models import Model
from .parts import Progress, Worker, Workshop
from .show import show, tags_entry

PLAIN = "text/plain"
_MODEL = {"model": str, "name": str, "stream": bool, "verbose": bool, "insecure": bool}


@dataclass
class Request:
    shop: Workshop
    parameter: str
    raw: bytes
    offset_minutes: int


@dataclass
class Stream:
    """A worker to be told about in NDJSON, or at its end."""

    worker: Worker
    stream: bool
    cancels: bool


Handler = Callable[[Request], Awaitable[Response | Stream]]


async def _root(request: Request) -> Response:
    return Response(200, b"Ollama is running", "text/plain; charset=utf-8")


async def _version(request: Request) -> Response:
    return json_response({"version": request.shop.version.text})


async def _tags(request: Request) -> Response:
    def work() -> list[dict[str, object]]:
        models = sorted(request.shop.models.all(), key=lambda model: -model.modified_ns)
        return [tags_entry(request.shop, model, request.offset_minutes) for model in models]

    return json_response({"models": await request.shop.thread(work)})


async def _ps(request: Request) -> Response:
    return json_response({"models": []})  # nothing is ever loaded here


async def _blob_head(request: Request) -> Response:
    try:
        present = request.parameter in request.shop.blobs
    except InvalidDigest as error:
        return error_response(str(error), 400)
    if present:
        return Response(200)
    return error_response(f"blob {quote(request.parameter)} not found", 404)


async def _create(request: Request) -> Stream:
    shop = request.shop
    checked = check(request.raw, shop.version, shop.blobs)
    return Stream(create(shop, checked), checked.stream, shop.version.era is Era.C)


async def _show(request: Request) -> Response:
    data = decode(request.raw, "ShowRequest", _MODEL)
    text = data.get("model") or data.get("name") or ""
    if not text:
        raise APIError("model is required", 400)
    if names.is_cloud(text):
        # Proxied to ollama.com by the real server, which the emulator must not do.
        raise APIError("ollama cloud is disabled: remote model details are unavailable", 403)
    name = names.parse(names.strip_local(text))
    if not name.valid:
        raise APIError("invalid model name", 400)
    model = _find(request.shop, name)
    if model is None:
        as_sent = request.shop.version.show_names_absent_model_as_sent
        shown = text if as_sent else request.shop.models.existing(name).shortest
        raise APIError(f"model '{shown}' not found", 404)
    verbose, offset = bool(data.get("verbose")), request.offset_minutes
    return json_response(
        await request.shop.thread(lambda: show(request.shop, model, verbose=verbose, offset_minutes=offset))
    )


async def _copy(request: Request) -> Response:
    data = decode(request.raw, "CopyRequest", {"source": str, "destination": str})
    given = {}
    for key in ("source", "destination"):
        text = data.get(key, "")
        name = names.parse(text)
        if not name.valid:
            raise APIError(f"{key} {quote(text)} is invalid", 400)
        given[key] = request.shop.models.existing(name)
    if request.shop.models.load(given["source"]) is None:
        raise APIError(f"model {quote(data['source'])} not found", 404)
    request.shop.models.copy(given["source"], given["destination"])
    return Response(200)


async def _delete(request: Request) -> Response:
    data = decode(request.raw, "DeleteRequest", _MODEL)
    text = data.get("model") or data.get("name") or ""
    if not text.strip():
        raise APIError("model is required", 400)
    name = names.parse(names.strip_local(text))
    if not name.valid:
        raise APIError(f"name {quote(text)} is invalid", 400)
    model = _find(request.shop, name)
    if model is None:
        raise APIError(f"model '{text}' not found", 404)
    request.shop.models.remove(model.name)
    request.shop.models.remove_layers(model)
    return Response(200)


async def _pull(request: Request) -> Stream:
    data = decode(request.raw, "PullRequest", _MODEL)
    name = names.parse(data.get("model") or data.get("name") or "")
    if not name.valid:
        raise APIError("invalid model name", 400)

    async def work() -> Worker:
        # There is no registry behind the emulator; this is how a missing model looks.
        yield Progress("pulling manifest")
        raise APIError("pull model manifest: file does not exist")

    return Stream(work(), data.get("stream", True), True)


async def _unmodelled(request: Request) -> Response:
    return error_response("not modelled by the emulator", 501)


def _find(shop: Workshop, name: names.Name) -> Model | None:
    return shop.models.load(shop.models.existing(name))


# path -> method -> (name in the call record and the fault plan, handler; None: blobs.py's POST)
_ROUTES: dict[str, dict[str, tuple[str, Handler | None]]] = {
    "/": {"GET": ("root", _root), "HEAD": ("root", _root)},
    "/api/version": {"GET": ("version", _version), "HEAD": ("version", _version)},
    "/api/tags": {"GET": ("tags", _tags), "HEAD": ("tags", _tags)},
    "/api/ps": {"GET": ("ps", _ps)},
    "/api/show": {"POST": ("show", _show)},
    "/api/create": {"POST": ("create", _create)},
    "/api/copy": {"POST": ("copy", _copy)},
    "/api/delete": {"DELETE": ("delete", _delete)},
    "/api/pull": {"POST": ("pull", _pull)},
    "/api/blobs/": {"HEAD": ("blob_head", _blob_head), "POST": ("blob_post", None)},
    **{
        f"/api/{name}": {"POST": (name, _unmodelled)}
        for name in ("push", "generate", "chat", "embed", "embeddings")
    },
}


def find(method: str, path: str) -> tuple[str, Handler | None, str] | Response:
    """Call name, handler and path parameter; or gin's 404 or 405, in plain text."""
    parameter = ""
    if path.startswith("/api/blobs/"):
        parameter = path.removeprefix("/api/blobs/")
        path = "/api/blobs/" if parameter and "/" not in parameter else "/-"
    methods = _ROUTES.get(path)
    if methods is None:
        return Response(404, b"404 page not found", PLAIN)
    if method not in methods:
        return Response(405, b"405 method not allowed", PLAIN)
    name, handler = methods[method]
    return name, handler, parameter
