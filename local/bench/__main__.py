"""`python -m local.bench [--only NAME] [--small] [--write PAGE]`: measure, and print what is wanted and what is."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import timedelta
from pathlib import Path

from local.bench.figures import BenchError, Figure, heading, table, write_into
from local.bench.ground import Ground, now
from local.bench.measures import BENCHMARKS, FULL, SMALL, Size
from local.processes import ProcessError
from local.storage import StorageError

_LATENCY = timedelta(milliseconds=100)


def main() -> int:
    """Measure. Returns 0 once everything was measured, whether it is as wanted or not; 1 if it could not be."""
    options = _options()
    size = SMALL if options.small else FULL
    names = [options.only] if options.only else list(BENCHMARKS)
    try:
        measured = _measure(names, size)
        text = f"{heading(now())}.\n\n{table(measured)}"
        if options.write:
            write_into(options.write, text)
    except (BenchError, OSError, ProcessError, StorageError, TimeoutError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(f"{text}\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.bench", description=__doc__)
    parser.add_argument("--only", choices=BENCHMARKS, help="measure this alone")
    parser.add_argument("--small", action="store_true", help="a tenth of the size: a try, not a measurement")
    parser.add_argument("--write", type=Path, help="put the table into this page too")
    options = parser.parse_args()
    if options.write and (options.only or options.small):
        parser.error("--write is for all numbers at their full size")
    return options


def _measure(names: list[str], size: Size) -> list[Figure]:
    figures: list[Figure] = []
    with Ground(_LATENCY) as ground:
        for name in names:
            began = time.monotonic()
            ground.renew()
            found = BENCHMARKS[name](ground, size)
            figures += found
            how = f"measured within {time.monotonic() - began:.0f} s" if found else "can't be measured on this system"
            sys.stderr.write(f"{name}: {how}\n")
    return figures


if __name__ == "__main__":
    sys.exit(main())
