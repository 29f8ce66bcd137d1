#!/bin/sh
# Makes this checkout ready to run: Python, a virtual environment from a lock file, RabbitMQ, code generated from the protos.
#
#   services/local/bootstrap.sh                        to run (requirements-local.lock): called by the targets of the Makefile
#   services/local/bootstrap.sh dev                    to check and test too (requirements-dev.lock, the same packages and more)
#   services/local/bootstrap.sh --install PACKAGE…     what it calls as root (itself, or by sudo); not for people
#
# Settings: PYTHON, the interpreter to build the virtual environment with. Without it the one of an existing environment is kept, or the
# first of python3, python3.13, python3.12 and python3.11 is taken that is new enough.
#
# Quiet and instant when there is nothing to do; each slow step says so in one line. Two of these at once wait for each other. A step that
# was interrupted is done again: each leaves its stamp only at its end.
set -eu

RABBITMQ=/usr/lib/rabbitmq/bin/rabbitmq-server
POLICY=/usr/sbin/policy-rc.d
MARK='# of Steward: no service is started while RabbitMQ is being installed; may be removed'

say() { printf '%s\n' "$*"; }
fail() {
    printf 'Steward: %s\n' "$*" >&2
    exit 1
}
quietly() { # what to say when it fails, command … : its output is shown only then
    failure=$1
    shift
    output=$(mktemp)
    if ! "$@" >"$output" 2>&1; then
        tail -n 15 "$output" >&2
        rm -f "$output"
        fail "$failure"
    fi
    rm -f "$output"
}

# As root: installs packages without letting Debian start the services that come with them.
install_packages() {
    if [ -f "$POLICY" ] && grep -qF "$MARK" "$POLICY"; then
        rm -f "$POLICY" # of an installation that was killed
    fi
    restore() {
        rm -f "$POLICY"
        if [ -e "$POLICY.steward-kept" ]; then mv "$POLICY.steward-kept" "$POLICY"; fi
    }
    if [ -e "$POLICY" ]; then mv "$POLICY" "$POLICY.steward-kept"; fi
    trap restore EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\n%s\nexit 101\n' "$MARK" >"$POLICY"
    chmod 755 "$POLICY"
    export DEBIAN_FRONTEND=noninteractive
    if ! apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$@"; then
        apt-get -o DPkg::Lock::Timeout=300 update
        apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$@"
    fi
    # The system's own broker stays off after the next boot too: this machine has it for Steward's private node.
    case " $* " in
    *" rabbitmq-server "*) if command -v systemctl >/dev/null; then systemctl disable rabbitmq-server.service || true; fi ;;
    esac
}

if [ "${1:-}" = --install ]; then
    shift
    install_packages "$@"
    exit
fi

need_packages() {
    command -v apt-get >/dev/null || fail "this is no Debian: install what its packages $* hold by hand, then try again"
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root='sudo -n'
    else
        fail "these Debian packages are missing, and only root can install them; run once:  sudo apt-get install --no-install-recommends $*"
    fi
    say "Installing Debian packages: $* …"
    quietly "apt-get could not install $*" $as_root sh "$root/services/local/bootstrap.sh" --install "$@"
}

purpose=${1:-local}
case $purpose in local | dev) ;; *) fail "there is nothing to make ready for $purpose: local or dev" ;; esac
cd "$(dirname "$0")/../.."
root=$(pwd)
case $root in *[[:space:]]*) fail "the path of the checkout must have no spaces in it: $root" ;; esac

exec 9<"$root/services/local/bootstrap.sh"
flock 9

# Python

fits() { command -v "$1" >/dev/null && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
python=
for candidate in ${PYTHON:-.venv/bin/python python3 python3.13 python3.12 python3.11}; do
    if fits "$candidate"; then
        python=$("$candidate" -c 'import sys; print(getattr(sys, "_base_executable", "") or sys.executable)')
        break
    fi
done
[ -n "$python" ] || fail "Python 3.11 or newer is needed (${PYTHON:-python3} is none): set PYTHON to one"

# What is missing of Debian's packages

hash_of() { sha256sum <"$1" | cut -d ' ' -f 1; }
stamp() { if [ -f "$1" ]; then cat "$1"; fi; }
lock=$(hash_of requirements-local.lock)
dev_lock=$(hash_of requirements-dev.lock)
wanted="$("$python" -c 'import platform, sys; print(platform.python_version(), sys.base_prefix)') $root $lock"
installed=no
if [ "$(stamp .venv/steward-stamp)" = "$wanted" ]; then installed=yes; fi
if [ $purpose = dev ] && [ -f .venv/steward-dev-stamp ] && [ "$(stamp .venv/steward-dev-stamp)" != "$dev_lock" ]; then installed=no; fi

can_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }
missing=
if [ $installed = no ] && ! can_venv; then missing=python3-venv; fi
if [ ! -x "$RABBITMQ" ]; then missing="$missing rabbitmq-server"; fi
if [ -n "$missing" ]; then need_packages $missing; fi
[ -x "$RABBITMQ" ] || fail "rabbitmq-server is installed, but there is no $RABBITMQ"

# The virtual environment: made anew when a lock file that it was made from, the interpreter or the place of the checkout has changed

install() { # lock file
    say "Installing the Python packages of $1 into .venv …"
    quietly "pip could not install the packages" .venv/bin/python -m pip install --disable-pip-version-check --no-input \
        --require-hashes --only-binary :all: --requirement "$1"
}
if [ $installed = no ]; then
    can_venv || fail "$python cannot make virtual environments: set PYTHON to one that can"
    rm -f .venv/steward-stamp .venv/steward-dev-stamp
    quietly "the virtual environment could not be made" "$python" -m venv --clear .venv
    install "requirements-$purpose.lock"
    packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n%s\n' "$root" "$root/gen" >"$packages/steward.pth"
    printf '%s\n' "$wanted" >.venv/steward-stamp
elif [ $purpose = dev ] && [ ! -f .venv/steward-dev-stamp ]; then
    install requirements-dev.lock # has the same versions of what is there
fi
if [ $purpose = dev ]; then printf '%s\n' "$dev_lock" >.venv/steward-dev-stamp; fi

# Code from the protos

protos=$(find protos -name '*.proto' | LC_ALL=C sort)
wanted="$(cat $protos | sha256sum) $(printf '%s' "$protos" | sha256sum) $lock"
if [ ! -f gen/stamp ] || [ "$(cat gen/stamp)" != "$wanted" ]; then
    say "Generating code from the protos …"
    google=$(.venv/bin/python -c 'import google.api, os; print(os.path.dirname(os.path.dirname(list(google.api.__path__)[0])))')
    known=$(.venv/bin/python -c 'import grpc_tools, os; print(os.path.join(os.path.dirname(grpc_tools.__file__), "_proto"))')
    fresh=.venv/gen-new
    rm -rf "$fresh"
    mkdir "$fresh"
    .venv/bin/python -m grpc_tools.protoc --proto_path=protos --proto_path="$google" --proto_path="$known" \
        --python_out="$fresh" --pyi_out="$fresh" \
        --include_imports --include_source_info --descriptor_set_out="$fresh/steward.binpb" \
        $(printf '%s\n' "$protos" | sed 's|^protos/||')
    printf '%s\n' "$wanted" >"$fresh/stamp"
    rm -rf .venv/gen-old
    if [ -e gen ]; then mv gen .venv/gen-old; fi
    mv "$fresh" gen
    rm -rf .venv/gen-old
fi
