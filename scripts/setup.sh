# Sourced by demo, test and their like: makes .venv from the locked requirements, once.
# Usage: yuzui_setup TIER...   (run, dev, bench; see requirements/). Prints to standard error only.

yuzui_say() { printf '%s\n' "$*" >&2; }

yuzui_python() {
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null 2>&1 && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            printf '%s' "$name"
            return 0
        fi
    done
    yuzui_say "Yuzui needs python3 3.11 or newer; found: $(python3 --version 2>&1 || echo none)"
    exit 3
}

yuzui_need_venv() {
    "$1" -c 'import venv, ensurepip' >/dev/null 2>&1 && return 0
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if command -v apt-get >/dev/null 2>&1; then line="sudo apt-get install -y python$version-venv"
    elif command -v dnf >/dev/null 2>&1; then line="sudo dnf install -y python3-pip"
    elif command -v zypper >/dev/null 2>&1; then line="sudo zypper install -y python3-pip"
    elif command -v apk >/dev/null 2>&1; then line="sudo apk add py3-pip"
    else line="install the venv module of $1 ($version) with your system's package tool"
    fi
    yuzui_say "This python3 has no venv module. One line mends it:"
    yuzui_say "    $line"
    exit 3
}

yuzui_setup() {
    cd "$YUZUI_ROOT" || exit 1
    stamp=$(cat pyproject.toml requirements/*.txt | sha256sum | cut -c1-16)
    want="$stamp $*"
    [ "$(cat .venv/yuzui-ready 2>/dev/null)" = "$want" ] && return 0
    python=$(yuzui_python) || exit 3
    yuzui_need_venv "$python"
    case " $* " in
        *" dev "*) yuzui_say "Setting up: about 295 MB to download, 1.1 GB on disk, a minute or two." ;;
        *) yuzui_say "Setting up: about 275 MB to download, 1 GB on disk, about two minutes." ;;
    esac
    # Another Python than last time would leave half of each behind.
    if [ -d .venv ] && ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        rm -rf .venv
    fi
    [ -d .venv ] || "$python" -m venv .venv || exit 1
    files="-r requirements/build.txt"
    for tier in "$@"; do files="$files -r requirements/$tier.txt"; done
    quiet=--quiet
    [ -t 2 ] && quiet=--progress-bar=on
    # shellcheck disable=SC2086
    .venv/bin/python -m pip install $quiet --disable-pip-version-check --require-hashes $files >&2 || {
        yuzui_say "Set-up failed: the packages named in requirements/ could not be installed (network? disk?)."
        exit 1
    }
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . >&2 || exit 1
    # Kept beside the sources even where Python is told to keep nothing of what it compiles: half of each start otherwise.
    .venv/bin/python -m compileall -q ingest anomaly storage console tests bench || exit 1
    # Machine code of the inner loops, kept in .venv/cache: half a minute once, a second at each start otherwise.
    yuzui_say "Compiling the inner loops ..."
    .venv/bin/yuzui warm >&2 || exit 1
    printf '%s' "$want" > .venv/yuzui-ready
}
