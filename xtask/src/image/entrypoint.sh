#!/bin/sh
# Makes a cluster at the first start, as the official image does, then becomes the server.
set -eu
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chown -R postgres "$PGDATA" /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi

case ${1:-} in
'' | -*) set -- postgres "$@" ;;
esac

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    umask 077
    printf '%s\n' "${POSTGRES_PASSWORD:?must be set}" >/tmp/password
    initdb --username="$user" --pwfile=/tmp/password --no-sync --encoding=UTF8 --locale=C.UTF-8 \
        --auth-host=scram-sha-256 --auth-local=trust
    rm /tmp/password
    printf "listen_addresses = '*'\nunix_socket_directories = '/var/run/postgresql'\n" \
        >>"$PGDATA/postgresql.conf"
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    if [ "$database" != postgres ]; then
        printf 'CREATE DATABASE "%s"\n' "$database" | postgres --single -D "$PGDATA" postgres
    fi
    # The first of the two "ready to accept connections" that users of the official image wait for.
    pg_ctl -w -o "-c listen_addresses=''" start
    pg_ctl -w -m fast stop
fi
exec "$@"
