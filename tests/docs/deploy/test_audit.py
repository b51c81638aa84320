"""Test how CI reads the report of pip-audit about the packages of the container image."""

import importlib.util
from typing import Any

from tests.docs.deploy.tools import ROOT
from tests.rows import rows

FINE = {"name": "fine", "version": "1.0", "vulns": []}
SKIPPED = {"name": "skipped", "skip_reason": "not found"}
VULNERABLE = {"name": "old", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}


@rows(
    ("packages", "status", "told"),
    [
        ([FINE, FINE], 0, "knows no vulnerability of these 2 packages"),
        ([FINE, VULNERABLE], 1, "old 1.0: PYSEC-1, fixed in 1.1"),
        ([SKIPPED, VULNERABLE], 1, "old 1.0: PYSEC-1"),
        ([FINE, SKIPPED], 1, "skipped: not audited: not found"),
        ([SKIPPED, SKIPPED], 77, "NOT AUDITED"),
    ],
)
def test_only_an_index_that_knows_all_packages_makes_the_audit_pass(
    packages: list[dict[str, Any]], status: int, told: str
) -> None:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts/audit.py")
    assert spec is not None
    assert spec.loader is not None
    audit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audit)

    found, lines = audit.judge({"dependencies": packages})

    assert found == status
    assert told in lines[0]
    assert len(lines) == 1
