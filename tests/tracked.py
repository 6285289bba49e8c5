"""What git tracks or would: the repository's own files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


@cache
def tracked_names() -> tuple[str, ...]:
    """The path of every file that git tracks or would, as it stands in the working copy."""
    git = shutil.which("git")
    assert git is not None, "these tests need git"
    listed = subprocess.run(  # noqa: S603  a fixed command
        [git, "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    return tuple(name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())


@cache
def tracked() -> Mapping[str, str]:
    """The text of each of them, by its path; what is no text is left out."""
    contents = {name: (ROOT / name).read_bytes() for name in tracked_names()}
    return {
        name: content.decode("utf-8", errors="replace") for name, content in contents.items() if b"\0" not in content
    }
