"""The control endpoint, `/__emulator__/...`: faults, calls and state of a running process.

Not recorded as calls, never faulted, not Ollama.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from .blobs import InvalidDigest
from .exchange import error_response, json_response
from .faults import Fault
from .http import Response

if TYPE_CHECKING:
    from .server import OllamaEmulator

PREFIX = "/__emulator__/"


async def handle(emulator: OllamaEmulator, method: str, path: str, raw: bytes) -> Response:
    try:
        data = json.loads(raw) if raw.strip() else {}
        return await _route(emulator, method, path.removeprefix(PREFIX), data)
    except (ValueError, TypeError, KeyError, AttributeError, InvalidDigest) as error:
        return error_response(f"{type(error).__name__}: {error}", 400)


async def _route(emulator: OllamaEmulator, method: str, what: str, data: Any) -> Response:
    match method, what.partition("/")[0]:
        case "GET", "calls":
            return json_response({"calls": [call.as_json() for call in emulator.calls]})
        case "DELETE", "calls":
            emulator.calls.clear()
        case "GET", "faults":
            return json_response({"faults": [armed.as_json() for armed in emulator.faults.all()]})
        case "POST", "faults":
            given = data if isinstance(data, list) else [data]
            faults = [Fault.from_json(item) for item in given]
            armed = [emulator.faults.add(fault) for fault in faults]
            return json_response({"faults": [item.as_json() for item in armed]}, 201)
        case "DELETE", "faults":
            emulator.faults.clear()
        case "POST", "release":
            return json_response({"released": emulator.faults.release(data.get("id"))})
        case "GET", "state":
            return json_response(emulator.state())
        case "GET", "blobs":
            digest, loop = what.partition("/")[2], asyncio.get_running_loop()
            if digest not in emulator.blobs:
                return error_response("no such blob", 404)
            sha256 = await loop.run_in_executor(emulator.executor, emulator.blobs.sha256, digest)
            return json_response({"size": emulator.blobs.size(digest), "sha256": sha256})
        case "POST", "restart":
            emulator.restart_soon(data.get("prune", "grace"), data.get("version"))
        case "POST", "refuse":
            emulator.refuse_soon(float(data["seconds"]))
        case _:
            return error_response("no such control", 404)
    return Response(204)
