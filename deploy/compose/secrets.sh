#!/bin/sh
# Makes what the services have to know of each other and nobody else: deploy/compose/secrets.sh [FOLDER]
# Run it once; what is there is kept. The folder is yours alone; the files in it are read by the containers' users.
set -eu
folder=${1:-"$(dirname "$0")/secrets"}
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"
umask 022

word() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
once() { [ -s "$1" ] || cat >"$1"; }

word | once postgres_password
word | once redis_password
word | once grafana_password
[ -s identity.pem ] || openssl genpkey -algorithm ed25519 -out identity.pem 2>/dev/null
chmod 644 identity.pem
trust=$(openssl pkey -in identity.pem -pubout -outform DER | tail -c 32 | base64)

once redis.conf <<CONF
requirepass $(cat redis_password)
appendonly yes
appendfsync always
maxmemory-policy noeviction
save ""
CONF
once weft.toml <<TOML
database_url = "postgresql://weft:$(cat postgres_password)@postgres:5432/weft"
redis_url = "redis://:$(cat redis_password)@redis:6379/0"
identity_trust = "$trust"
TOML
echo "secrets are in $folder"
