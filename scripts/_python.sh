# Sourced by the entry points: sets $root and defines `bootstrap`, which runs our Python with the first interpreter
# that is new enough ($PYTHON, if given, decides).
root=$(cd "$(dirname "$0")/.." && pwd)
bootstrap() {
    for candidate in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            exec "$candidate" "$root/scripts/bootstrap.py" "$@"
        fi
    done
    for candidate in ${PYTHON:-python3 python}; do
        if version=$("$candidate" --version 2>&1); then
            echo "kubeling: needs Python 3.11 or newer, and $candidate is $version." >&2
            exit 1
        fi
    done
    echo "kubeling: needs Python 3.11 or newer, and ${PYTHON:-python3} is not on the PATH." >&2
    exit 1
}
