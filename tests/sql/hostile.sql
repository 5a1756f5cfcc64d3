-- A database with everything in it that a backup can get wrong. For psql, servers 14 to 18:
--
--   psql -X -v db=hostile -f tests/sql/hostile.sql postgres
--
-- Makes the database `:db` from template0 (it must not exist) and the roles it needs where they
-- are missing. Connect as a superuser. `-v options="..."` gives the database another encoding or
-- locale, `-v huge_bytes=...` another size to its large row (50 MB). What a server's version or
-- build lacks is left out.
\set ON_ERROR_STOP on
\if :{?db}
\else
\set db hostile
\endif
\if :{?huge_bytes}
\else
\set huge_bytes 52428800
\endif
\if :{?options}
\else
\set options 'ENCODING ''UTF8'' LC_COLLATE ''C'' LC_CTYPE ''C.UTF-8'''
\endif
SET client_encoding = 'UTF8';
SET client_min_messages = warning;
SELECT current_setting('server_version_num')::int >= 150000 AS v15,
       current_setting('server_version_num')::int >= 180000 AS v18 \gset

-- Roles belong to the cluster: another hostile database may have made them already.
SELECT format('CREATE ROLE %I', role)
FROM unnest(ARRAY['hostile owner', 'hostile"reader', 'hostile_writer', 'häuptling ☃']) role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
ALTER ROLE "hostile owner" CREATEDB VALID UNTIL '2031-05-06 07:08:09+00';
ALTER ROLE hostile_writer LOGIN PASSWORD 'wr1ter''s \ secret' CONNECTION LIMIT 7;
ALTER ROLE "hostile""reader" SET statement_timeout = '61s';
COMMENT ON ROLE hostile_writer IS E'writes; ''quotes'' and\nnew lines';
GRANT "hostile""reader" TO hostile_writer WITH ADMIN OPTION;
GRANT pg_read_all_stats TO "häuptling ☃";

CREATE DATABASE :"db" WITH TEMPLATE template0 :options OWNER "hostile owner" CONNECTION LIMIT 50;
COMMENT ON DATABASE :"db" IS E'a ''hostile'' database\nwith two lines';
ALTER DATABASE :"db" SET search_path = "$user", public, "sche ma";
ALTER DATABASE :"db" SET statement_timeout = '17min';
ALTER DATABASE :"db" SET hostile.custom = 'it''s "quoted" \ and ☃';
ALTER ROLE hostile_writer IN DATABASE :"db" SET work_mem = '12345kB';
ALTER ROLE "häuptling ☃" IN DATABASE :"db" SET search_path = 'sche ma';
ALTER ROLE ALL IN DATABASE :"db" SET hostile.everybody = 'yes';
REVOKE ALL ON DATABASE :"db" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"db" TO "hostile""reader";
GRANT CONNECT, TEMPORARY ON DATABASE :"db" TO hostile_writer WITH GRANT OPTION;

\connect :"db"
SET client_encoding = 'UTF8';
SET client_min_messages = warning;
SET search_path = public;
SET statement_timeout = 0;
SET timezone = 'UTC';

-- Names with spaces, quotes, new lines, emoji and words of the language.
CREATE SCHEMA "sche ma" AUTHORIZATION "hostile owner";
CREATE SCHEMA "SELECT";
GRANT USAGE ON SCHEMA "sche ma" TO "hostile""reader" WITH GRANT OPTION;
GRANT CREATE ON SCHEMA public TO "hostile owner";
ALTER DEFAULT PRIVILEGES FOR ROLE "hostile owner" IN SCHEMA "sche ma"
    GRANT SELECT ON TABLES TO "hostile""reader";
ALTER DEFAULT PRIVILEGES FOR ROLE "hostile owner" REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
\set hostile_name 'ta"ble''\nSET transaction_timeout = 0;\n\\. 🐘 -- /* $$'
CREATE TABLE "sche ma".:"hostile_name" ("co""l'
umn" int PRIMARY KEY, "🐘	" text DEFAULT E'a\nb''c\\d', " " text NOT NULL, "order" int, "UPPER" int);
INSERT INTO "sche ma".:"hostile_name" VALUES (1, E'\t', '', NULL, 2), (2, DEFAULT, ' ', 3, NULL);
ALTER TABLE "sche ma".:"hostile_name" OWNER TO "hostile owner";
CREATE TABLE "SELECT"."FROM" ("WHERE" text CHECK ("WHERE" <> 'drop table'));
INSERT INTO "SELECT"."FROM" VALUES ('Robert''); DROP TABLE students;--');

-- Text that looks like the dump around it. In the first table each line stands alone.
CREATE TABLE lines_of_text (line text);
INSERT INTO lines_of_text VALUES
    ('SET transaction_timeout = 0;'), ('\.'), ('\N'), (NULL), (''), (' '), ('\'), ('\\.'), ('--'),
    ('COPY public.lines_of_text (line) FROM stdin;'), ('\connect postgres'), ('\restrict x'),
    ('\!touch /tmp/hostile'), ('$$'), (E'a\tb'), (E'a\nSET transaction_timeout = 0;\nb'),
    (E'a\r\nb'), (E'\n\\.\n'), (E'\x01\x02\x1b\x7f'), (E'\b\f\v'), ('🐘'), (E'e\u0301'),
    (E'\u202Ertl'), (E'\uFEFF'), (repeat('x', 8192)), (repeat(E'\\', 1000)), (repeat(E'\t', 1000));
COMMENT ON TABLE lines_of_text IS E'a comment\nSET transaction_timeout = 0;\n\\.\n$$ '' " -- ;';
CREATE TABLE text_and_more (id int PRIMARY KEY, a text, b text, c text);
INSERT INTO text_and_more VALUES
    (1, '\.', '\.', '\.'), (2, NULL, '', '\N'), (3, 'NULL', E'\\\t', E'\n'), (4, E'\r', E'\\\n', NULL);

-- Types.
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"', '🙂');
ALTER TYPE mood ADD VALUE 'meh' BEFORE 'it''s "ok"';
ALTER TYPE mood ADD VALUE 'worse' BEFORE 'meh';
CREATE TYPE no_value AS ENUM ();
CREATE DOMAIN positive AS int DEFAULT 1 CONSTRAINT "is > 0" CHECK (VALUE > 0);
CREATE DOMAIN small_positive AS positive CHECK (VALUE < 1000);
CREATE DOMAIN there AS text NOT NULL;
CREATE DOMAIN moods AS mood[] CHECK (cardinality(VALUE) < 9);
CREATE TYPE point3 AS (x double precision, "the y" double precision, z numeric(10, 3));
CREATE TYPE nested AS (label text COLLATE "C", inner_point point3, moods mood[]);
CREATE TYPE time_range AS RANGE (subtype = time, multirange_type_name = time_ranges);
CREATE TYPE text_range AS RANGE (subtype = text, collation = "C");
COMMENT ON TYPE nested IS 'a composite in a composite';
COMMENT ON COLUMN nested.label IS 'of a type';
ALTER TYPE point3 OWNER TO "hostile owner";
GRANT USAGE ON TYPE mood TO hostile_writer;
REVOKE USAGE ON TYPE nested FROM PUBLIC;

CREATE TABLE made_types (
    id int PRIMARY KEY, must there DEFAULT '', feeling mood, feelings mood[], tuned small_positive, listed moods,
    composite nested, composites nested[], spans time_range, many_spans time_ranges,
    words text_range, days daterange, ints int4multirange);
INSERT INTO made_types VALUES
    (1, 'x', '🙂', '{worse,NULL,"it''s \"ok\""}', 999, '{meh}',
     ROW('a "b", (c)', ROW('NaN', '-Infinity', 1.5), '{sad}'), ARRAY[ROW(NULL, NULL, '{}')::nested, NULL],
     '[08:00,17:30)', '{[08:00,12:00),[13:00,17:00)}', '["a,b",)', 'empty', '{[1,3),[7,9)}'),
    (2, '', NULL, '{}', 1, NULL, NULL, '{}', '(,)', '{}', '(,"")', '[2024-02-29,infinity)', NULL),
    (3, '\.', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE numbers_and_times (
    f4 real, f8 double precision, n numeric, wide numeric(1000, 500), i8 bigint, at timestamptz,
    local timestamp(3), d date, t time, tz timetz, iv interval);
INSERT INTO numbers_and_times VALUES
    ('NaN', '-0', 'NaN', ('0.' || repeat('1', 500))::numeric, -9223372036854775808, 'infinity', '-infinity', 'infinity',
     '24:00', '23:59:59.999999-15:59', '-178000000 years 11 mons -5 days 04:05:06.7'),
    ('-Infinity', 'Infinity', 'Infinity', NULL, 9223372036854775807, '4713-01-01 00:00:00+00 BC',
     '294276-12-31 23:59:59.999', '4713-01-01 BC', '00:00', '00:00+15:59', '0'),
    ('1e-45', '2.2250738585072014e-308', '-Infinity', 0, 0, '-infinity', NULL, '5874897-12-31', NULL, NULL, NULL),
    (0.1, 0.1 + 0.2::float8, 1e-300, 1e400, 1, '2024-03-31 02:30:00.123456+02', NULL, NULL, NULL, NULL, '1 day -1 sec');

CREATE TABLE other_types (
    ints int[][], texts text[], shifted int[], doc json, docb jsonb, b boolean, bits bit varying, bits8 bit(8),
    ch "char", padded char(5), var varchar(3), addr inet, net cidr, mac macaddr, mac8 macaddr8, uid uuid,
    p point, l line, s lseg, bx box, pa path, po polygon, ci circle, tsv tsvector, tsq tsquery, reg regclass, lsn pg_lsn);
INSERT INTO other_types VALUES
    ('{{1,2},{NULL,4}}', '{"a,b","c\\d","",NULL,"NULL","{}"," x "}', '[-2:0]={7,8,9}',
     '{"a" :  1, "a":2, "\u0041": "\\"}', '{"b": [1e400, -0.0, null, {"": "☃\n"}], "a": "\u00e9"}',
     true, B'', B'10101010', '\', 'ab', 'äöü', '::ffff:1.2.3.4/96', '10/8', '08:00:2b:01:02:03',
     '08:00:2b:01:02:03:04:05', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '(Infinity,NaN)', '{1,2,3}', '[(0,0),(1,1)]',
     '((0,0),(1,1))', '[(0,0),(1,1)]', '((0,0),(1,1),(1,0))', '<(0,0),5>', 'a:1A ''it''''s'':2',
     'fat & (rat | !''c:t'':*)', 'made_types', '16/B374D848'),
    ('{}', '{}', NULL, 'null', 'null', false, B'1', NULL, '', '', '', '0.0.0.0/0', '::/0', NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, '', '', NULL, NULL);

CREATE TABLE every_byte (id int PRIMARY KEY, data bytea NOT NULL, fixed bytea DEFAULT '\x00ff5c2e0a');
INSERT INTO every_byte (id, data) SELECT n + 1, set_byte('\x00', 0, n) FROM generate_series(0, 255) n;
INSERT INTO every_byte (id, data) SELECT 0, string_agg(data, '' ORDER BY id) FROM every_byte;
INSERT INTO every_byte (id, data) VALUES (999, '');

CREATE TABLE huge (id int PRIMARY KEY, one_large_text text);
ALTER TABLE huge ALTER one_large_text SET STORAGE EXTERNAL;
INSERT INTO huge
SELECT 1, left(string_agg(md5(n::text), '' ORDER BY n), :huge_bytes)
FROM generate_series(1, :huge_bytes / 32 + 1) n;
INSERT INTO huge VALUES (2, 'small');

-- Columns: generated, identity, dropped, added later.
CREATE TABLE columns_of_all_sorts (
    always int GENERATED ALWAYS AS IDENTITY (START WITH 5 INCREMENT BY -3 MINVALUE -100 MAXVALUE 100 CYCLE),
    by_default smallint GENERATED BY DEFAULT AS IDENTITY,
    old_style serial, gone text, base int NOT NULL,
    doubled int GENERATED ALWAYS AS (base * 2) STORED,
    described text GENERATED ALWAYS AS ('is ' || base::text || E'\n') STORED,
    called text DEFAULT 'x' || current_setting('server_version_num', true));
INSERT INTO columns_of_all_sorts (gone, base, called) SELECT 'gone', n, NULL FROM generate_series(1, 50) n;
ALTER TABLE columns_of_all_sorts DROP gone, ADD added_later text NOT NULL DEFAULT 'constant', ADD "last" int;
INSERT INTO columns_of_all_sorts (base, called, added_later) VALUES (51, NULL, 'own');
ALTER TABLE columns_of_all_sorts ALTER base SET STATISTICS 7, ALTER base SET (n_distinct = -0.5),
    ALTER described SET STORAGE EXTERNAL, ALTER added_later SET COMPRESSION pglz;
GRANT SELECT (base, doubled), UPDATE (base) ON columns_of_all_sorts TO hostile_writer;
COMMENT ON COLUMN columns_of_all_sorts.doubled IS 'twice';
\if :v18
ALTER TABLE columns_of_all_sorts ADD seen int GENERATED ALWAYS AS (base + 1) VIRTUAL;
\endif

-- Tables without rows, without columns, without a log; and one of a type.
CREATE TABLE empty_table (id int PRIMARY KEY, a text);
CREATE TABLE no_column ();
INSERT INTO no_column SELECT FROM generate_series(1, 5);
CREATE TABLE no_column_no_row ();
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, a text);
INSERT INTO unlogged SELECT n, 'row ' || n FROM generate_series(1, 100) n;
CREATE TABLE typed OF point3 (PRIMARY KEY (x), z WITH OPTIONS DEFAULT 3);
INSERT INTO typed VALUES (1, 2, DEFAULT), (3, 'NaN', 4);

-- Sequences at odd values.
CREATE SEQUENCE never_called START 17;
CREATE SEQUENCE at_its_end AS smallint MAXVALUE 32767;
CREATE SEQUENCE downwards INCREMENT -7 MINVALUE -9223372036854775808 MAXVALUE -1 START -1;
CREATE SEQUENCE "set, not called" CACHE 20 CYCLE;
SELECT setval('at_its_end', 32767), setval('downwards', -9223372036854775808),
       setval('"set, not called"', 4711, false) \g /dev/null
GRANT USAGE ON SEQUENCE "set, not called" TO hostile_writer;
ALTER SEQUENCE never_called OWNED BY empty_table.id;
\if :v15
CREATE UNLOGGED SEQUENCE unlogged_sequence;
\endif

-- Partitions in two levels, one made on its own with another order of columns; hash; none at all.
CREATE TABLE parted (id bigint GENERATED BY DEFAULT AS IDENTITY, region text, at date NOT NULL, data jsonb,
    PRIMARY KEY (id, region, at)) PARTITION BY LIST (region);
CREATE TABLE parted_north PARTITION OF parted FOR VALUES IN ('north', 'it''s') PARTITION BY RANGE (at);
CREATE TABLE parted_north_2024 PARTITION OF parted_north FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE "parted north 2025" (data jsonb, gone int, at date NOT NULL, region text NOT NULL, id bigint NOT NULL);
ALTER TABLE "parted north 2025" DROP gone;
ALTER TABLE parted_north ATTACH PARTITION "parted north 2025" FOR VALUES FROM ('2025-01-01') TO (MAXVALUE);
CREATE TABLE parted_default PARTITION OF parted DEFAULT PARTITION BY HASH (id);
CREATE TABLE parted_default_0 PARTITION OF parted_default FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parted_default_1 PARTITION OF parted_default (CHECK (id > 0)) FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO parted (region, at, data)
SELECT (ARRAY['north', 'it''s', 'south', 'NULL'])[1 + n % 4], date '2024-06-01' + n, jsonb_build_object('n', n)
FROM generate_series(1, 500) n;
CREATE INDEX parted_at ON parted (at);
CREATE INDEX ON ONLY parted ((data ->> 'n'));
CREATE TABLE parted_of_nothing (id int) PARTITION BY RANGE (id);
CREATE TABLE points_to_parted (id bigint, region text, at date,
    FOREIGN KEY (id, region, at) REFERENCES parted MATCH FULL);
INSERT INTO points_to_parted SELECT id, region, at FROM parted WHERE id % 7 = 0;

-- Inheritance, from two parents, with rows in each.
CREATE TABLE parent_a (id int NOT NULL DEFAULT 1, a text CHECK (a <> 'x') NO INHERIT);
CREATE TABLE parent_b (id int, b text CONSTRAINT b_is_short CHECK (length(b) < 100));
CREATE TABLE child (c text DEFAULT 'c') INHERITS (parent_a, parent_b);
CREATE TABLE grandchild (own int) INHERITS (child);
INSERT INTO parent_a VALUES (1, 'only a');
INSERT INTO parent_b VALUES (2, 'only b');
INSERT INTO child VALUES (3, 'x', 'b');
INSERT INTO grandchild VALUES (4, 'a', 'b', 'c', 5);

-- Constraints, indexes, statistics.
CREATE TABLE constrained (
    id int PRIMARY KEY, pair_a int, pair_b int, during tsrange, label text COLLATE "POSIX",
    parent int REFERENCES constrained ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT "no over""lap" EXCLUDE USING gist (during WITH &&) WHERE (pair_a IS NULL) DEFERRABLE,
    UNIQUE (pair_a, pair_b) INCLUDE (label)
) WITH (fillfactor = 70, autovacuum_enabled = false, toast.autovacuum_vacuum_scale_factor = 0.5);
CREATE TABLE circular (id int PRIMARY KEY, other int REFERENCES constrained);
INSERT INTO constrained
SELECT n, n % 2, n, NULL, 'l' || n, CASE WHEN n > 1 THEN n - 1 END FROM generate_series(1, 20) n;
INSERT INTO circular VALUES (1, 1), (2, NULL);
ALTER TABLE constrained ADD CONSTRAINT to_circular FOREIGN KEY (pair_a) REFERENCES circular NOT VALID;
ALTER TABLE constrained ADD CONSTRAINT never_checked CHECK (pair_b < 10) NOT VALID;
COMMENT ON CONSTRAINT never_checked ON constrained IS 'old rows break it';
CREATE UNIQUE INDEX constrained_expression ON constrained (lower(label) text_pattern_ops DESC NULLS LAST) WHERE pair_b > 3;
ALTER INDEX constrained_expression ALTER COLUMN 1 SET STATISTICS 300;
CREATE INDEX ON constrained USING brin (id) WITH (pages_per_range = 4);
CREATE INDEX ON constrained USING hash (label);
COMMENT ON INDEX constrained_expression IS 'of an expression';
ALTER TABLE constrained CLUSTER ON constrained_pkey, REPLICA IDENTITY FULL;
ALTER TABLE circular REPLICA IDENTITY USING INDEX circular_pkey;
CREATE STATISTICS "sta""tistics" (ndistinct, dependencies, mcv) ON pair_a, pair_b FROM constrained;
CREATE STATISTICS of_expression ON (pair_a % 3), lower(label) FROM constrained;
ALTER STATISTICS of_expression SET STATISTICS 77;
ALTER STATISTICS of_expression OWNER TO "hostile owner";
COMMENT ON STATISTICS of_expression IS 'extended';
\if :v15
CREATE TABLE nulls_alike (a int UNIQUE NULLS NOT DISTINCT);
INSERT INTO nulls_alike VALUES (1), (NULL);
\endif

-- Functions, procedures, aggregates, operators, casts; bodies with the dump's own words in them.
CREATE FUNCTION "fun""ction 🐘"(a int DEFAULT 1, VARIADIC rest text[] DEFAULT '{"it''s"}') RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, "sche ma" SET work_mem = '3MB' AS $body$
BEGIN
    -- The next lines are text of a function, not statements of a dump.
    RETURN '
SET transaction_timeout = 0;
\.
' || $$quoted$$ || array_to_string(rest, ', ');
END $body$;
CREATE FUNCTION atomic(a int, INOUT c text, OUT b int) LANGUAGE sql
    BEGIN ATOMIC SELECT c || (SELECT count(*) FROM lines_of_text)::text, a + 1; END;
CREATE FUNCTION returns_rows() RETURNS TABLE (a mood, b nested) LANGUAGE sql ROWS 7 COST 3 LEAKPROOF
    AS 'SELECT feeling, composite FROM public.made_types';
CREATE PROCEDURE commits(INOUT n int) LANGUAGE plpgsql AS $$ BEGIN n := n + 1; COMMIT; END $$;
CREATE FUNCTION moods_less(mood, mood) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 < $2';
CREATE OPERATOR public.<<<< (LEFTARG = mood, RIGHTARG = mood, FUNCTION = moods_less);
CREATE AGGREGATE product(double precision) (SFUNC = float8mul, STYPE = double precision, INITCOND = '1');
CREATE FUNCTION to_mood(int) RETURNS mood LANGUAGE sql IMMUTABLE AS 'SELECT (enum_range(NULL::public.mood))[$1]';
CREATE CAST (int AS mood) WITH FUNCTION to_mood(int) AS ASSIGNMENT;
REVOKE EXECUTE ON FUNCTION returns_rows() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION returns_rows() TO "hostile""reader";
COMMENT ON FUNCTION atomic IS E'SET transaction_timeout = 0;\n';
COMMENT ON OPERATOR <<<< (mood, mood) IS 'an operator';
CREATE TEXT SEARCH DICTIONARY plain_words (TEMPLATE = simple, STOPWORDS = english, ACCEPT = false);
CREATE TEXT SEARCH CONFIGURATION searched (COPY = pg_catalog.english);
ALTER TEXT SEARCH CONFIGURATION searched ALTER MAPPING FOR asciiword WITH plain_words, english_stem;

-- Views, rules and materialized views, filled and not.
CREATE VIEW "vi ew" WITH (security_barrier = true) AS
    SELECT id, feeling, 'SET transaction_timeout = 0;'::text AS statement, E'\n\\.\n'::text AS ending FROM made_types;
CREATE VIEW checked AS SELECT * FROM text_and_more WHERE id < 100 WITH LOCAL CHECK OPTION;
CREATE RECURSIVE VIEW counted (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counted WHERE n < 10;
CREATE MATERIALIZED VIEW kept AS SELECT region, count(*) AS n FROM parted GROUP BY region;
CREATE UNIQUE INDEX ON kept (region);
CREATE MATERIALIZED VIEW kept_of_kept AS SELECT sum(n) AS total FROM kept;
CREATE MATERIALIZED VIEW not_filled AS SELECT * FROM kept WITH NO DATA;
CREATE RULE redirected AS ON INSERT TO "vi ew" DO INSTEAD INSERT INTO empty_table VALUES (NEW.id, 'by rule');
COMMENT ON VIEW "vi ew" IS 'a view';
COMMENT ON RULE redirected ON "vi ew" IS 'a rule';
ALTER VIEW checked ALTER c SET DEFAULT 'of the view';
GRANT SELECT ON kept TO PUBLIC;
GRANT SELECT ON parted TO "hostile owner";
ALTER MATERIALIZED VIEW kept OWNER TO "hostile owner";

-- Triggers of every kind.
CREATE FUNCTION on_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER "be""fore" BEFORE INSERT OR UPDATE OF a ON text_and_more FOR EACH ROW
    WHEN (NEW.a IS DISTINCT FROM 'it''s') EXECUTE FUNCTION on_change('arg''ument', '\.');
CREATE TRIGGER after_all AFTER DELETE ON text_and_more REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION on_change();
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON constrained DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION on_change();
CREATE TRIGGER on_view INSTEAD OF UPDATE ON "vi ew" FOR EACH ROW EXECUTE FUNCTION on_change();
CREATE TRIGGER on_partitions AFTER INSERT ON parted FOR EACH ROW EXECUTE FUNCTION on_change();
ALTER TABLE text_and_more DISABLE TRIGGER "be""fore";
ALTER TABLE constrained ENABLE ALWAYS TRIGGER late;
ALTER TABLE parted_north_2024 DISABLE TRIGGER on_partitions;
COMMENT ON TRIGGER after_all ON text_and_more IS 'a trigger';

-- Row-level security: a dump that obeys it is incomplete.
CREATE TABLE secured (id int PRIMARY KEY, owner name DEFAULT current_user, secret text);
INSERT INTO secured SELECT n, 'hostile_writer', 'secret ' || n FROM generate_series(1, 30) n;
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY "po""licy" ON secured AS PERMISSIVE FOR SELECT TO hostile_writer, "hostile""reader"
    USING (owner = current_user);
CREATE POLICY narrow ON secured AS RESTRICTIVE FOR ALL TO PUBLIC USING (id < 20) WITH CHECK (id < 10);
CREATE TABLE secured_by_force (id int);
INSERT INTO secured_by_force SELECT generate_series(1, 30);
ALTER TABLE secured_by_force ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY, OWNER TO "hostile owner";
CREATE POLICY nobody ON secured_by_force USING (false);
COMMENT ON POLICY nobody ON secured_by_force IS 'hides every row';
GRANT SELECT, INSERT ON secured TO hostile_writer WITH GRANT OPTION;
GRANT ALL ON TABLE lines_of_text TO "häuptling ☃";

-- Large objects: without a byte, short, of several pages; owned, granted, commented.
SELECT lo_from_bytea(424201, ''), lo_from_bytea(424202, '\x00ff0a5c2e0a'),
       lo_from_bytea(424203, (SELECT string_agg(data, '' ORDER BY round, id)
                              FROM every_byte, generate_series(1, 200) round)) \g /dev/null
ALTER LARGE OBJECT 424202 OWNER TO "hostile owner";
ALTER LARGE OBJECT 424203 OWNER TO hostile_writer;
GRANT SELECT ON LARGE OBJECT 424203 TO "hostile""reader";
-- Two of the same owner and grants: pg_dump 17 and later writes one entry for both.
SELECT lo_from_bytea(424204, 'one'), lo_from_bytea(424205, 'other') \g /dev/null
GRANT SELECT ON LARGE OBJECT 424204, 424205 TO "hostile""reader";
COMMENT ON LARGE OBJECT 424202 IS E'large\nSET transaction_timeout = 0;';

-- Collations, foreign data, replication.
CREATE COLLATION "col""lation" (LOCALE = 'C.UTF-8');
CREATE TABLE collated (a text COLLATE "col""lation" PRIMARY KEY, b text COLLATE "C");
INSERT INTO collated VALUES ('a', 'ä'), ('B', 'ß'), ('ä', 'É');
-- For a restore on a server that was built without ICU: -v without_icu=1.
\if :{?without_icu}
\else
\set without_icu 0
\endif
SELECT count(*) > 0 AND :without_icu = 0 AS has_icu FROM pg_collation WHERE collname = 'en-x-icu' \gset
\if :has_icu
CREATE COLLATION case_blind (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false);
CREATE TABLE collated_by_icu (a text COLLATE case_blind UNIQUE);
INSERT INTO collated_by_icu VALUES ('Ärger'), ('Zebra');
\endif
CREATE FOREIGN DATA WRAPPER "wrap per" OPTIONS (debug 'it''s');
CREATE SERVER elsewhere TYPE 'none' VERSION '1' FOREIGN DATA WRAPPER "wrap per" OPTIONS (host 'nowhere.invalid');
CREATE USER MAPPING FOR hostile_writer SERVER elsewhere OPTIONS (user 'u', password 'p''w');
CREATE FOREIGN TABLE foreign_table (a int OPTIONS (column_name 'A'), b text NOT NULL) SERVER elsewhere OPTIONS (path '/');
-- These warn about a setting of the server that matters for replication only.
SET client_min_messages = error;
CREATE PUBLICATION "all tables" FOR ALL TABLES WITH (publish = 'insert, truncate');
CREATE PUBLICATION some_tables FOR TABLE circular, parted WITH (publish_via_partition_root = true);
\if :v15
CREATE PUBLICATION filtered FOR TABLE text_and_more (id, a) WHERE (id > 1);
CREATE PUBLICATION "of a schema" FOR TABLES IN SCHEMA "SELECT", CURRENT_SCHEMA;
\endif
SET client_min_messages = warning;
COMMENT ON PUBLICATION some_tables IS 'a publication';

-- An extension, where the server has it.
SELECT count(*) > 0 AS has_trgm FROM pg_available_extensions WHERE name = 'pg_trgm' \gset
\if :has_trgm
CREATE EXTENSION pg_trgm SCHEMA "sche ma" VERSION '1.5';
CREATE INDEX similar_lines ON text_and_more USING gin (a "sche ma".gin_trgm_ops);
COMMENT ON EXTENSION pg_trgm IS 'not its own comment';
\endif

-- 1,000 small tables, a hundred a transaction: locks are limited.
DO $$
BEGIN
    FOR n IN 1..1000 LOOP
        EXECUTE format('CREATE TABLE "SELECT".small_%s (id int PRIMARY KEY, a text DEFAULT %L)', n, n);
        EXECUTE format('INSERT INTO "SELECT".small_%s SELECT generate_series(1, %s)', n, n % 5);
        IF n % 100 = 0 THEN COMMIT; END IF;
    END LOOP;
END $$;

-- Last, for they would watch the above.
CREATE FUNCTION watches() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF tg_tag = 'CREATE TABLE AS' AND current_setting('hostile.custom', true) = 'refuse' THEN
        RAISE EXCEPTION 'refused';
    END IF;
END $$;
CREATE EVENT TRIGGER "event trigger" ON ddl_command_end WHEN TAG IN ('CREATE TABLE AS', 'DROP FUNCTION')
    EXECUTE FUNCTION watches();
CREATE EVENT TRIGGER on_drop ON sql_drop EXECUTE FUNCTION watches();
ALTER EVENT TRIGGER on_drop DISABLE;
COMMENT ON EVENT TRIGGER on_drop IS 'is off';
ANALYZE constrained;
