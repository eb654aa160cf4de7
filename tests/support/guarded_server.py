"""`python -m ingest_service`, watched by the loop guard: `python -m tests.support.guarded_server serve`.

Switched on with `loop_guard.switched_on`; what is noted goes to the log, see `loop_guard.check_log`.
"""

from __future__ import annotations

import sys

from ingest_service.__main__ import main
from ingest_service.app import Service
from tests.support import loop_guard

_start = Service.start


async def _start_and_watch(self: Service, *, is_prepared: bool = False) -> None:
    await _start(self, is_prepared=is_prepared)
    loop_guard.serving_began()


if __name__ == "__main__":
    loop_guard.install_from_environment()
    Service.start = _start_and_watch  # type: ignore[method-assign]
    sys.exit(main())
