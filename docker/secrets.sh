#!/bin/sh
# Writes docker/.env, what the compose stack must keep to itself: random values, made once. An existing file is left as it is.
set -eu
cd "$(dirname "$0")"
if [ -e .env ]; then
    echo "docker/.env is there already; remove it, and the volumes with it, to begin anew" >&2
    exit 0
fi
umask 077
private=$(openssl genpkey -algorithm ED25519)
cat >.env.new <<END
POSTGRES_PASSWORD=$(openssl rand -hex 20)
OWNER_PASSWORD=$(openssl rand -hex 20)
SERVICE_PASSWORD=$(openssl rand -hex 20)
BROKER_PASSWORD=$(openssl rand -hex 20)
GRAFANA_PASSWORD=$(openssl rand -hex 10)
INTERNAL_TOKEN=$(openssl rand -hex 20)
DATA_KEY=$(openssl rand -base64 32)
IDENTITY_KEY="$private"
IDENTITY_PUBLIC_KEYS="$(printf '%s\n' "$private" | openssl pkey -pubout)"
END
mv .env.new .env
echo "docker/.env is written. Keep a copy of DATA_KEY: without it identity numbers cannot be read." >&2
