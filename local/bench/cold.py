"""`python -m local.bench.cold DIR`: load the app in DIR into the worker library, say how many functions it has, end."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from local.host.worker import Worker


async def _index(app: Path) -> int:
    worker = await Worker.load(app)
    worker.close()
    return len(worker.functions)


if __name__ == "__main__":
    print(f"indexed {asyncio.run(_index(Path(sys.argv[1])))}", flush=True)
