"""Ask the package index for known vulnerabilities of the locked packages of the container image.

The exit status is 0 if the index knows none, 1 if it knows one or could not answer for some packages, and 77 if it
answered for no package. Some mirrors of PyPI do not have this data; the packages are then not audited.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("deploy/image/requirements.txt", "deploy/image/build-requirements.txt")
NOT_DONE = 77
"""Exit status of a check that could not be made, as in Automake."""
ACCEPTED: Mapping[str, str] = {}
"""Vulnerabilities that do not affect the image: the reason by id."""


def judge(report: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Return the exit status and the lines to print for a report of pip-audit."""
    packages = report["dependencies"]
    unknown = [each for each in packages if "vulns" not in each]
    found = [
        f"{each['name']} {each['version']}: {vulnerability['id']}, fixed in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version'}"
        for each in packages
        for vulnerability in each.get("vulns", ())
        if vulnerability["id"] not in ACCEPTED
    ]
    if found:
        return 1, found
    if len(unknown) == len(packages):
        return NOT_DONE, [
            f"NOT AUDITED: the package index has no data about vulnerabilities of these {len(packages)} packages"
        ]
    if unknown:
        return 1, [f"{each['name']}: not audited: {each.get('skip_reason', 'unknown reason')}" for each in unknown]
    return 0, [f"the package index knows no vulnerability of these {len(packages)} packages"]


def main() -> int:
    """Audit the locked packages, print the result, and return the exit status."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"),
            *("--format", "json", *(word for lock in LOCKS for word in ("--requirement", lock))),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    # Standard error is printed only on failure: it says "No known vulnerabilities found" even if nothing was audited.
    try:
        status, lines = judge(json.loads(done.stdout))
    except ValueError:
        status, lines = 1, [f"pip-audit returned no report, and ended with status {done.returncode}:", done.stderr]
    print("\n".join(lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
