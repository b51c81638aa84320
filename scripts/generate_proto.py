"""Write `taskq_core/wire/asynq_pb2.py` and its type stub from `asynq.proto`; with `--check`, only compare.

The compiler in grpcio-tools stamps its own version into the code, and an older protobuf runtime then refuses to load
it. Its output for this file has not changed since 6.31. So the script sets the stamp to the oldest runtime that
`pyproject.toml` allows. Every grpcio-tools from 1.74 on then produces the same bytes.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = "taskq_core/wire/asynq.proto"
OUTPUTS = ("taskq_core/wire/asynq_pb2.py", "taskq_core/wire/asynq_pb2.pyi")
OLDEST_RUNTIME = (6, 31, 0)


def stamp(code: str) -> str:
    """Change generated code: set its version to the oldest runtime, and make stubs pass the strict type check."""
    major, minor, patch = OLDEST_RUNTIME
    code = re.sub(r"(?m)^# Protobuf Python Version: .*$", f"# Protobuf Python Version: {major}.{minor}.{patch}", code)
    code = re.sub(
        r"(Domain\.PUBLIC,\s+)\d+(,\s+)\d+(,\s+)\d+,",
        lambda found: f"{found[1]}{major}{found[2]}{minor}{found[3]}{patch},",
        code,
    )
    code = code.replace(": bool = ...", ": _Optional[bool] = ...")
    return code.replace(", _Mapping]", ", _Mapping[str, object]]")


def generate() -> dict[str, str]:
    """Run the compiler in a temporary folder and return its files, stamped, by their path in the project."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", f"--python_out={folder}"]
        subprocess.run([*command, f"--pyi_out={folder}", str(ROOT / PROTO)], check=True)
        return {name: stamp(Path(folder, name).read_text(encoding="utf-8")) for name in OUTPUTS}


def main() -> int:
    """Write the files, or with `--check` return 1 if a committed one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a committed file differs")
    check: bool = parser.parse_args().check
    stale = []
    for name, code in generate().items():
        target = ROOT / name
        if target.exists() and target.read_text(encoding="utf-8") == code:
            continue
        stale.append(name)
        if not check:
            target.write_text(code, encoding="utf-8")
    for name in stale:
        print(f"{name} {'differs from asynq.proto; run python scripts/generate_proto.py' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
