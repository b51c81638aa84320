"""Signatures stay typed: mypy and pyright agree, line by line, on what the files beside this one mark as wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FILES = sorted(path for path in HERE.glob("*.py") if path != Path(__file__))


def marked() -> set[str]:
    """Return the places at which an error is expected."""
    return {
        f"{path.name}:{number}"
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if line.endswith("  # error")
    }


def compare(found: dict[str, str]) -> None:
    missing = sorted(marked() - set(found))
    unexpected = {place: text for place, text in found.items() if place not in marked()}

    assert not unexpected, f"right code is refused: {unexpected}"
    assert not missing, f"wrong code passes: {missing}"


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def test_mypy() -> None:
    pytest.importorskip("mypy", reason="a tool of `make ci`")

    output = run(
        *(sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", "--hide-error-context"),
        *("--cache-dir", str(ROOT / ".mypy_cache" / "typing"), *[str(path) for path in FILES]),
    )

    found = {}
    for line in output.splitlines():
        place, kind, text = line.split(": ", 2)
        if kind == "error":
            name, _, number = place.partition(":")
            found[f"{Path(name).name}:{number}"] = text
    compare(found)


def test_pyright() -> None:
    pytest.importorskip("pyright", reason="a tool of `make ci`")

    output = run(
        *(sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable),
        *[str(path) for path in FILES],
    )

    compare(
        {
            f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}": each["message"]
            for each in json.loads(output)["generalDiagnostics"]
            if each["severity"] == "error"
        }
    )
