#!/bin/bash
# PostgreSQL for the trials of a sweep on several machines; no administrator.        docs/batch/storage.sh [FOLDER [PORT]]
#
# Run it where all workers can connect to, such as a login node (again after a reboot); it prints the --storage of the
# workers. FOLDER is on a disk of that machine. The password is made up, and kept in ~/.pgpass, where workers find it.
set -euo pipefail
umask 077

USER="${USER:-$(id -un)}"
FOLDER="${1:-/var/tmp/$USER-sweeps}"
PORT="${2:-5433}"
PATH="$PATH:$(printf '%s:' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin)" # where Debian and Red Hat have it

mkdir -p "$FOLDER"
FOLDER="$(realpath "$FOLDER")"
if [ ! -f "$FOLDER/data/PG_VERSION" ]; then
    password="$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
    initdb -D "$FOLDER/data" -U "$USER" -A scram-sha-256 --pwfile=<(echo "$password") > "$FOLDER/log"
    echo "host all all all scram-sha-256" >> "$FOLDER/data/pg_hba.conf"
    others="$(grep -v "^\*:$PORT:\*:$USER:" ~/.pgpass 2> /dev/null || true)"
    printf '%s\n' "*:$PORT:*:$USER:$password" "$others" > ~/.pgpass
    chmod 600 ~/.pgpass
fi
pg_ctl -D "$FOLDER/data" status > /dev/null ||
    pg_ctl -D "$FOLDER/data" -l "$FOLDER/log" -o "-h '*' -p $PORT -k '$FOLDER'" -w start > /dev/null
connection=(-h "$FOLDER" -p "$PORT" -U "$USER")
psql "${connection[@]}" -d postgres -Atc "select 1 from pg_database where datname = 'sweeps'" | grep -q 1 ||
    createdb "${connection[@]}" sweeps
echo "--storage postgresql://$USER@$(hostname -f):$PORT/sweeps"
echo "stop it: pg_ctl -D $FOLDER/data stop"
