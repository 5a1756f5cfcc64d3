-- About 1 GB of COPY text: numbers, free text and JSON, compressible as real tables are.
CREATE TABLE accounts AS
SELECT n AS aid, n % 40 AS bid, (hashint4(n) % 100000) AS balance, rpad(md5(n::text), 84) AS filler
FROM generate_series(1, 3000000) AS n;
ALTER TABLE accounts ADD PRIMARY KEY (aid);

CREATE TABLE claims AS
SELECT n AS id,
       'CLM-' || lpad(n::text, 10, '0') AS number,
       date '2020-01-01' + n % 2000 AS service_date,
       (hashint4(n) % 500000)::numeric / 100 AS charged,
       (ARRAY['paid', 'denied', 'pending', 'appealed'])[1 + n % 4] AS state,
       jsonb_build_object(
           'payer', 'payer ' || n % 300, 'codes', ARRAY[99213 + n % 30, 80053 + n % 17],
           'notes', repeat('reviewed and returned to the provider; ', 1 + n % 7),
           'hash', md5((n * 7)::text), 'amounts', ARRAY[n % 1000, n % 777, n % 55]) AS details,
       repeat(md5((n / 10)::text) || ' the claim was adjusted according to the contract ', 2) AS remark
FROM generate_series(1, 1400000) AS n;
ALTER TABLE claims ADD PRIMARY KEY (id);
CREATE INDEX claims_by_date ON claims (service_date);
ANALYZE;
CHECKPOINT;
