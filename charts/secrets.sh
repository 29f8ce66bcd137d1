#!/bin/sh
# Prints Secrets with random values that the chart steward reads, to be looked at and applied once:
#
#   sh charts/secrets.sh keys                 steward-keys: what processes sign, encrypt and know each other by
#   sh charts/secrets.sh roles                steward-<service>-role of each service, for postgresql.enabled (CloudNativePG)
#   sh charts/secrets.sh keys | kubectl --namespace property create --filename -
#
# `create`, not `apply`: what is there already must not be written over. Needs openssl 1.1.1 or newer.
set -eu

SERVICES='residents work_orders renovation billing_reminders surveys notifications governance'

indented() { sed 's/^/    /'; }

keys() {
    private=$(openssl genpkey -algorithm ED25519)
    public=$(printf '%s\n' "$private" | openssl pkey -pubout)
    cat <<END
apiVersion: v1
kind: Secret
metadata:
  name: steward-keys
type: Opaque
stringData:
  internal-token: $(openssl rand -hex 20)
  data-key: $(openssl rand -base64 32)
  identity-key: |
$(printf '%s\n' "$private" | indented)
  identity-public-keys: |
$(printf '%s\n' "$public" | indented)
END
}

roles() {
    for service in $SERVICES; do
        cat <<END
---
apiVersion: v1
kind: Secret
metadata:
  name: steward-$(printf '%s' "$service" | tr _ -)-role
type: kubernetes.io/basic-auth
stringData:
  username: $service
  password: $(openssl rand -hex 20)
END
    done
}

case ${1:-} in
keys | roles) "$1" ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
