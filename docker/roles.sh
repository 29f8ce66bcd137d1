#!/bin/sh
# PostgreSQL's image runs this once, on an empty volume: a database and two roles for each service.
#
#   <service>_owner   owns the database, and so its schemas: `migrate`
#   <service>         everything that runs: no superuser, no BYPASSRLS, owns nothing
set -eu

for service in residents work_orders renovation billing_reminders surveys notifications governance; do
    psql --set=ON_ERROR_STOP=1 --quiet --username="$POSTGRES_USER" --dbname=postgres \
        --set=service="$service" --set=owner="${service}_owner" --set=password="$SERVICE_PASSWORD" --set=owner_password="$OWNER_PASSWORD" <<'SQL'
CREATE ROLE :"owner" LOGIN PASSWORD :'owner_password' NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT;
CREATE ROLE :"service" LOGIN PASSWORD :'password' NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT;
CREATE DATABASE :"service" OWNER :"owner" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8';
REVOKE ALL ON DATABASE :"service" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"service" TO :"service";
SQL
done
