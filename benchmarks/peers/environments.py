"""Create an environment for each peer in `.venv/peers`: a virtual environment, or a folder of npm packages.

Environments are created at the first use. Each run updates them to the newest versions, unless `--keep` is given.
"""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.settings import Peer
from benchmarks.session import CaseError

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".venv" / "peers"
_INSTALL_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The environment in which a peer is installed."""

    program: str
    """Path of its Python, or of Node."""
    variables: Mapping[str, str]
    version: str


def environment_of(peer: Peer, *, keep: bool = False) -> Environment:
    """Return a peer's environment. Create or update it first.

    Args:
        peer: The peer.
        keep: Use the existing environment without updates.

    Raises:
        CaseError: The peer cannot be installed. The text contains the last output of the installer.
    """
    if not peer.packages:  # taskq itself, which runs in this environment
        return Environment(program=sys.executable, variables={}, version=_version(Path(sys.executable), peer))
    folder = FOLDER / peer.name
    if peer.node:
        return _node(peer, folder, keep=keep)
    python = folder / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    elif keep:
        return Environment(program=str(python), variables={}, version=_version(python, peer))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--upgrade"]
    _run([*install, "--disable-pip-version-check", *peer.packages])
    return Environment(program=str(python), variables={}, version=_version(python, peer))


def _node(peer: Peer, folder: Path, *, keep: bool) -> Environment:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise CaseError("node and npm are not on this machine")
    manifest = folder / "node_modules" / peer.distribution / "package.json"
    if not (keep and manifest.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        latest = [f"{package}@latest" for package in peer.packages]
        _run([npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *latest])
    version = f"{json.loads(manifest.read_text())['version']} on Node {_output([node, '--version']).lstrip('v')}"
    return Environment(program=node, variables={"BENCH_MODULES": f"{folder}/"}, version=version)


def _version(python: Path, peer: Peer) -> str:
    """Return the version of the peer, and of its Python if that differs from this one."""
    code = "import sys, platform, importlib.metadata as m; print(m.version(sys.argv[1]), platform.python_version())"
    version, _, its_python = _output([str(python), "-c", code, peer.distribution]).partition(" ")
    return version if its_python == platform.python_version() else f"{version} on Python {its_python}"


def _output(command: list[str]) -> str:
    done = _run(command)
    return done.stdout.strip()


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise CaseError(f"{' '.join(command[:6])} took more than {_INSTALL_S} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise CaseError(f"{' '.join(command[:6])} failed: {' '.join(lines[-3:])}")
    return done
