-- A database with everything in it that a backup can get wrong. For psql, servers 14 to 18:
--
--   psql -X -v db=hostile -f tests/sql/hostile.sql postgres
--
-- Makes the database `:db` from template0 (it must not exist) and the roles it needs where they
-- are missing. Connects as a superuser. Settings at the end pick what differs between versions.
\set ON_ERROR_STOP on
\if :{?db}
\else
\set db hostile
\endif
\if :{?huge_bytes}
\else
-- The large row: 50 MB.
\set huge_bytes 52428800
\endif
SET client_min_messages = warning;

-- Roles belong to the cluster: another hostile database may have made them already.
SELECT format('CREATE ROLE %I', role) FROM unnest(ARRAY[
    'hostile owner', 'hostile"reader', 'hostile_writer', 'häuptling ☃']) role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
ALTER ROLE "hostile owner" CREATEDB VALID UNTIL '2031-05-06 07:08:09+00';
ALTER ROLE "hostile_writer" LOGIN PASSWORD 'wr1ter''s \ secret' CONNECTION LIMIT 7;
ALTER ROLE "hostile""reader" SET statement_timeout = '61s';
COMMENT ON ROLE "hostile_writer" IS E'writes; ''quotes'' and\nnew lines';
GRANT "hostile""reader" TO "hostile_writer" WITH ADMIN OPTION;
GRANT pg_read_all_stats TO "häuptling ☃";

CREATE DATABASE :"db" WITH TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'
    OWNER "hostile owner" CONNECTION LIMIT 50;
COMMENT ON DATABASE :"db" IS E'a ''hostile'' database\nwith two lines';
ALTER DATABASE :"db" SET search_path = "$user", public, "sche ma";
ALTER DATABASE :"db" SET statement_timeout = '17min';
ALTER DATABASE :"db" SET "hostile.custom" = 'it''s "quoted" \ and ☃';
ALTER ROLE "hostile_writer" IN DATABASE :"db" SET work_mem = '12345kB';
ALTER ROLE "häuptling ☃" IN DATABASE :"db" SET search_path = 'sche ma';
ALTER ROLE ALL IN DATABASE :"db" SET "hostile.everybody" = 'yes';
REVOKE ALL ON DATABASE :"db" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"db" TO "hostile""reader";
GRANT CONNECT, TEMPORARY ON DATABASE :"db" TO "hostile_writer" WITH GRANT OPTION;

\connect :"db"
SET client_min_messages = warning;
SET search_path = public;
SET statement_timeout = 0;
SET timezone = 'UTC';

-- Schemas, their owners and grants; names with spaces, quotes, new lines, emoji.
CREATE SCHEMA "sche ma" AUTHORIZATION "hostile owner";
CREATE SCHEMA "SELECT";
GRANT USAGE ON SCHEMA "sche ma" TO "hostile""reader" WITH GRANT OPTION;
GRANT CREATE ON SCHEMA public TO "hostile owner";
ALTER DEFAULT PRIVILEGES FOR ROLE "hostile owner" IN SCHEMA "sche ma" GRANT SELECT ON TABLES TO "hostile""reader";
ALTER DEFAULT PRIVILEGES FOR ROLE "hostile owner" REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
CREATE TABLE "sche ma"."ta""ble'
with	tab and \ and -- comment /* and 🐘" ("co""l'
umn" int PRIMARY KEY, "🐘" text DEFAULT E'a\nb''c\\d', "" || '' text GENERATED ALWAYS AS ('x') STORED);
