#!/bin/sh
# Writes the secrets that docker-compose.yml names into ./secrets, each once; what is there stays. Platform tokens are
# empty until you write yours into their files. The folder is yours alone, its files are readable in the containers.
set -eu
umask 077
mkdir -p secrets
for name in api_token qdrant_key redis_password postgres_password grafana_password; do
  [ -s "secrets/$name" ] || head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "secrets/$name"
done
for name in discord_token telegram_token; do
  [ -e "secrets/$name" ] || : > "secrets/$name"
done
chmod 0444 secrets/*
