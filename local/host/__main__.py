"""`python -m local.host --app DIR --port N [--settings FILE] [--log-json]`: run a Functions app on this machine."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from local.host import logs
from local.host.errors import HostError
from local.host.host import ADDRESS, Host
from local.host.settings import load_app_settings, read_settings


def main() -> int:
    """Serve the app until SIGTERM or Ctrl-C. Returns 0, or 1 if the app can't be run, with the reason on stderr."""
    arguments = _arguments()
    logs.configure(as_json=arguments.log_json)
    app = arguments.app.resolve()
    try:
        if arguments.settings is not None:
            load_app_settings(arguments.settings, os.environ)
        asyncio.run(_serve(app, arguments.port))
    except HostError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.host", description="Run a Functions app on this machine.")
    parser.add_argument("--app", type=Path, required=True, help="the directory of function_app.py and host.json")
    parser.add_argument("--port", type=int, required=True, help="the HTTP port at 127.0.0.1; 0 for a free one")
    parser.add_argument("--settings", type=Path, help="a local.settings.json; the environment wins over its Values")
    parser.add_argument("--log-json", action="store_true", help="log one JSON object per line")
    return parser.parse_args()


async def _serve(app: Path, port: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    host = await Host.load(app, read_settings(app, os.environ))
    try:
        bound = await host.start(port)
    except HostError:
        await host.close()
        raise
    print(f"listening on http://{ADDRESS}:{bound}", flush=True)  # whoever started us waits for this line
    await stopped.wait()
    await host.stop()


if __name__ == "__main__":
    sys.exit(main())
