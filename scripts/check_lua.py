"""Check the Lua scripts, with their included files, for undefined variables. Needs luacheck, in Debian's `lua-check`.

A script that uses an undefined variable fails only when it reaches that line, which may be in production. The numbers
of the lines are those of the script with its included files. Without luacheck the check is skipped, except in CI
(`CI=true`), where it fails.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from taskq_core.broker.scripts import all_scripts

PROVIDED = ("redis", "KEYS", "ARGV", "cjson", "cmsgpack", "bit", "struct")
"""Variables that Redis defines, in addition to those of Lua 5.1."""
CHECKED = ("0", "1")
"""Classes of problems, as luacheck numbers them: syntax errors and global variables."""


def main() -> int:
    """Return the exit status: 1 if a script has a problem."""
    luacheck = shutil.which("luacheck")
    if luacheck is None:
        print("luacheck is not installed (on Debian: apt-get install lua-check); the scripts were not checked")
        return 1 if os.environ.get("CI") else 0
    with tempfile.TemporaryDirectory(prefix="taskq-lua-") as folder:
        for script in all_scripts():
            (Path(folder) / f"{script.name}.lua").write_text(script.text, encoding="utf-8")
        options = ("--std", "lua51", "--read-globals", *PROVIDED, "--only", *CHECKED, "--formatter", "plain")
        return subprocess.run((luacheck, ".", *options), cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
