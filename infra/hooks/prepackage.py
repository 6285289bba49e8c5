"""azd runs this before it packs the code: bytecode goes along, for a cold start without compiling.

Its sources' hashes are in it and are checked, so bytecode that is left in the working copy never hides a change.
"""

from __future__ import annotations

import compileall
import py_compile
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSION = (3, 13)


def compile_code(root: Path) -> bool:
    """Compile what ships below a folder, and nothing else; whether all of it could be compiled."""
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    for cache in (root / "shared").rglob("__pycache__"):
        shutil.rmtree(cache)
    shutil.rmtree(root / "__pycache__", ignore_errors=True)
    package = compileall.compile_dir(root / "shared", quiet=1, force=True, invalidation_mode=mode)
    triggers = compileall.compile_file(root / "function_app.py", quiet=1, force=True, invalidation_mode=mode)
    return bool(package and triggers)


def main() -> int:
    """Compile with the Python that the app runs on; another one's bytecode would only be left aside there."""
    if sys.version_info[:2] != VERSION:
        print(f"This is Python {sys.version_info[0]}.{sys.version_info[1]}, not 3.13: the package has no bytecode.")
        return 0
    return 0 if compile_code(ROOT) else 1


if __name__ == "__main__":
    sys.exit(main())
