"""Launchers as a user runs them: programs of their own, on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_launcher(name: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `python -m launch.<name>` to its end, whatever its status."""
    return subprocess.run(
        [sys.executable, "-m", f"launch.{name}", *arguments],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",  # so that an argument may say bytes that are no UTF-8
        timeout=280,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
