#!/bin/sh
# Create or update the virtual environment for a job, and print the path of its Python.
#
#   sh scripts/environment.sh run    packages for `make demo`, `make test` and `make bench`
#   sh scripts/environment.sh lint   these packages, and the tools of `make ci`
#   sh scripts/environment.sh docs   packages for `make site`
#
# The script uses the newest Python >= 3.11 of the machine for which all packages install as wheels. The variable PYTHON
# selects another one: a version such as 3.12, a command, or a path. Each version has its own environment in
# .venv/<version>. It is created again if another interpreter of that version is used, and updated if pyproject.toml has
# changed. Standard output contains only the path of the Python. All messages go to standard error.
set -eu

cd "$(dirname "$0")/.."
job=${1:-run}
case $job in
  run) groups="--group test --group example" ;;
  lint) groups="--group test --group example --group lint --group docs" ;;
  docs) groups="--group docs" ;;
  *) echo "scripts/environment.sh: unknown job '$job'; known are run, lint and docs" >&2; exit 2 ;;
esac

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_REQUIRE_VIRTUALENV=0
# Ignore the virtual environment that is active in the caller's shell.
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH

say() { echo "$*" >&2; }

# Print "<minor version> <identity> <path>" of an interpreter, or nothing if it is not suitable. Python itself reports the
# real path, because the command on PATH may be the shim of a version manager. An interpreter inside a virtual environment
# reports the interpreter from which the environment was created.
describe() {
  "$1" -c '
import os, sys
if sys.version_info >= (3, 11) and sys.implementation.name == "cpython":
    path = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    print(sys.version_info[1], sys.version.split()[0] + "@" + os.path.realpath(sys.base_prefix), path)
' 2>/dev/null || true
}

# Print the paths and commands to try. The versions that are probably the newest come first.
candidates() {
  for minor in 15 14 13 12 11; do echo "python3.$minor"; done
  echo python3
  echo python
  for folder in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin "$HOME"/.local/bin /usr/local/bin /opt/homebrew/bin /usr/bin; do
    for path in "$folder"/python3.1[1-9]; do
      if [ -x "$path" ]; then echo "$path"; fi
    done
  done
}

# Print the suitable interpreters without duplicates, the newest first. Within a version, those on PATH come first.
interpreters() {
  if [ -n "${PYTHON:-}" ]; then
    case $PYTHON in
      3.[0-9]*) echo ".venv/$PYTHON/bin/python" && candidates | grep "python$PYTHON\$" || true ;;
      *) echo "$PYTHON" ;;
    esac
  else
    for path in .venv/3.*/bin/python; do echo "$path"; done # prefer interpreters of existing environments
    candidates
  fi | while read -r command; do describe "$command"; done | awk '!seen[$0]++' | sort -s -t ' ' -k1,1nr
}

# Create an empty environment. Debian's python3 has no ensurepip, so the pip of another interpreter installs pip there.
make_venv() {
  rm -rf "$2"
  if "$1" -c 'import ensurepip, venv' 2>/dev/null; then
    "$1" -m venv "$2" >&2 || return 1
  else
    "$1" -m venv --without-pip "$2" >&2 2>/dev/null || return 1
    for other in python3 $(candidates); do
      if "$other" -m pip --python "$2/bin/python" install --quiet "pip>=25.1" >/dev/null 2>&1; then break; fi
    done
  fi
  "$2/bin/python" -m pip --version >/dev/null 2>&1 || return 1
}

# Install the packages as wheels only. Fail if a package would have to be compiled.
fill() {
  "$1" -m pip install --quiet --upgrade "pip>=25.1" >&2 &&
    # shellcheck disable=SC2086  # $groups contains several words
    "$1" -m pip install --quiet --upgrade --only-binary :all: --editable ".[all]" $groups >&2
}

fingerprint=$(cksum <pyproject.toml)
list=$(interpreters)
if [ -z "$list" ]; then
  say "No Python >= 3.11 was found${PYTHON:+ as '$PYTHON'}. Install one, or name it: make test PYTHON=/path/to/python3"
  exit 1
fi

problem=
tried=
while read -r minor identity path; do
  folder=.venv/3.$minor
  stamp="$fingerprint $identity"
  case " $tried " in *" $minor "*) continue ;; esac # skip further interpreters of a version that has failed
  if [ "$(describe "$folder/bin/python" | cut -d ' ' -f 2)" = "$identity" ]; then
    for done in "$job" lint; do
      if [ "$(cat "$folder/installed-$done" 2>/dev/null)" = "$stamp" ]; then
        echo "$PWD/$folder/bin/python"
        exit 0
      fi
    done
  else
    if [ -z "${PYTHON:-}" ] && [ "$(cat ".venv/3.$minor.unfit-$job" 2>/dev/null)" = "$stamp" ]; then
      continue # this interpreter has already failed with the same pyproject.toml
    fi
    say "Making $folder with $path ..."
    mkdir -p .venv
    if ! make_venv "$path" "$folder"; then
      problem="$path cannot create virtual environments (on Debian: apt-get install python3-venv)"
      rm -rf "$folder"
      continue
    fi
  fi
  say "Installing into $folder ... (once, and again when pyproject.toml changes)"
  if fill "$folder/bin/python"; then
    echo "$stamp" >"$folder/installed-$job"
    rm -f ".venv/3.$minor.unfit-$job"
    echo "$PWD/$folder/bin/python"
    exit 0
  fi
  problem="some packages cannot be installed as wheels on $path; the messages above name them"
  say "$problem"
  tried="$tried $minor"
  rm -rf "$folder"
  echo "$stamp" >".venv/3.$minor.unfit-$job"
done <<LIST
$list
LIST

say "No suitable Python was found on this machine: ${problem:-all have failed before; delete .venv to try again}."
exit 1
