-- Documents of tenants, as they were given. id: the caller's own, of its tenant. headings: those it stands under elsewhere.
CREATE TABLE documents (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  title text NOT NULL,
  headings text[] NOT NULL,
  text text NOT NULL,
  form text NOT NULL,
  language regconfig NOT NULL,
  source text NOT NULL,
  metadata jsonb NOT NULL,
  digest bytea NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant, id)
);
CREATE INDEX documents_metadata ON documents USING gin (metadata jsonb_path_ops);

-- Pieces of documents. place_begin, place_end: where the text stands in that of the document, in characters. digest: of all
-- that is searched, so that a piece that did not change keeps its vectors. words: title and headings weigh more.
CREATE TABLE chunks (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  document bigint NOT NULL REFERENCES documents ON DELETE CASCADE,
  tenant text COLLATE "C" NOT NULL,
  position integer NOT NULL,
  place_begin integer NOT NULL,
  place_end integer NOT NULL,
  title text NOT NULL,
  headings text[] NOT NULL,
  text text NOT NULL,
  digest bytea NOT NULL,
  words tsvector NOT NULL
);
CREATE INDEX chunks_document ON chunks (document);
CREATE INDEX chunks_tenant ON chunks (tenant);
CREATE INDEX chunks_words ON chunks USING gin (words) WITH (fastupdate = off);
ALTER TABLE chunks ALTER COLUMN words SET STATISTICS 200;
-- Ranking reads the words of many chunks: they stand uncompressed beside the text, which is short.
ALTER TABLE chunks SET (toast_tuple_target = 8160);

-- How many chunks hold some words, by what ANALYZE found; of rare words, and before it ran, it knows nothing. A function, for
-- the views it reads take long to plan.
CREATE FUNCTION frequent_words(asked text[]) RETURNS TABLE (lexeme text, chunks float8)
LANGUAGE plpgsql STABLE STRICT ROWS 8 AS $$
BEGIN
  RETURN QUERY
    SELECT found.lexeme, found.share::float8 * greatest(reltuples, 0)::float8
    FROM pg_stats, pg_class, unnest(most_common_elems::text::text[], most_common_elem_freqs) AS found (lexeme, share)
    WHERE schemaname = current_schema() AND tablename = 'chunks' AND attname = 'words'
      AND oid = 'chunks'::regclass AND found.lexeme = ANY (asked);
END $$;

-- How many chunks a tenant has; from 2,000 on, how many all have.
CREATE FUNCTION chunks_of(whose text) RETURNS float8 LANGUAGE plpgsql STABLE AS $$
DECLARE
  counted float8;
BEGIN
  SELECT count(*) INTO counted FROM (SELECT FROM chunks WHERE tenant = whose LIMIT 2000) first;
  IF counted < 2000 THEN
    RETURN counted;
  END IF;
  RETURN (SELECT greatest(counted, reltuples::float8) FROM pg_class WHERE oid = 'chunks'::regclass);
END $$;

-- Versions of the embedding, side by side: each has its vectors in the table vectors_NUMBER. name: what makes the vectors.
-- ready: every chunk had its vector once, so it can be searched by.
CREATE TABLE embeddings (
  number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text COLLATE "C" NOT NULL UNIQUE,
  dimensions integer NOT NULL,
  ready boolean NOT NULL DEFAULT false,
  create_time timestamptz NOT NULL DEFAULT now()
);

-- The schema pgvector is in. Nothing of this schema needs it before the first version of an embedding is made.
CREATE FUNCTION vector_schema() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
  WHERE e.extname = 'vector'
$$;

-- Makes the table of the vectors of a version; false where pgvector is not there and cannot be had. Half-precision: half the
-- memory, and up to 4,000 dimensions with an index.
CREATE FUNCTION make_vectors(embedding integer, dimensions integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  vectors text := format('vectors_%s', embedding);
BEGIN
  IF vector_schema() IS NULL THEN
    BEGIN
      CREATE EXTENSION vector SCHEMA public;
    EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR undefined_file THEN
      RETURN false;
    END;
  END IF;
  EXECUTE format(
    'CREATE TABLE %1$I (
       chunk bigint PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
       document bigint NOT NULL,
       tenant text COLLATE "C" NOT NULL,
       vector %2$I.halfvec(%3$s) NOT NULL
     )', vectors, vector_schema(), dimensions);
  EXECUTE format('ALTER TABLE %I ALTER COLUMN vector SET STORAGE PLAIN', vectors);
  EXECUTE format('CREATE INDEX %I ON %I (tenant)', vectors || '_tenant', vectors);
  EXECUTE format('CREATE INDEX %I ON %I (document)', vectors || '_document', vectors);
  EXECUTE format(
    'CREATE INDEX %I ON %I USING hnsw (vector %I.halfvec_cosine_ops)',
    vectors || '_near', vectors, vector_schema());
  RETURN true;
END $$;

-- Deletes the table of the vectors of a version.
CREATE FUNCTION drop_vectors(embedding integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('DROP TABLE IF EXISTS %I', format('vectors_%s', embedding));
END $$;

-- Stores vectors of chunks, in pgvector's text form; chunks that are gone are passed over. Returns how many were stored.
CREATE FUNCTION put_vectors(embedding integer, numbers bigint[], vectors text[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  stored bigint;
BEGIN
  EXECUTE format(
    'WITH there AS (
       SELECT c.number, c.document, c.tenant, given.vector
       FROM unnest($1, $2) AS given (number, vector) JOIN chunks c USING (number)
       FOR KEY SHARE OF c
     )
     INSERT INTO %I (chunk, document, tenant, vector)
     SELECT number, document, tenant, vector::%I.halfvec FROM there
     ON CONFLICT (chunk) DO UPDATE SET vector = excluded.vector',
    format('vectors_%s', embedding), vector_schema()) USING numbers, vectors;
  GET DIAGNOSTICS stored = ROW_COUNT;
  RETURN stored;
END $$;

-- Chunks that have no vector of a version, in the order of their numbers after a number.
CREATE FUNCTION without_vector(embedding integer, behind bigint, most integer)
RETURNS TABLE (number bigint, title text, headings text[], text text) LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT c.number, c.title, c.headings, c.text FROM chunks c
     WHERE c.number > $1 AND NOT EXISTS (SELECT FROM %I v WHERE v.chunk = c.number)
     ORDER BY c.number LIMIT $2',
    format('vectors_%s', embedding)) USING behind, most;
END $$;

-- How many chunks of a document have a vector of a version.
CREATE FUNCTION vectors_in(embedding integer, number bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
  counted bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM %I WHERE document = $1', format('vectors_%s', embedding))
    INTO counted USING number;
  RETURN counted;
END $$;

-- The chunks nearest to a vector, of a tenant and, where not null, of some documents. Few enough are compared one by one, so
-- that none is missed; more are looked up in the index, on and on until there are enough.
CREATE FUNCTION nearest(
  embedding integer, whose text, among bigint[], asked text, most integer, few integer, effort integer
) RETURNS TABLE (chunk bigint, distance float8) LANGUAGE plpgsql ROWS 50 AS $$
DECLARE
  vectors text := format('vectors_%s', embedding);
  near text := format('vector OPERATOR(%I.<=>) $1::%I.halfvec', vector_schema(), vector_schema());
  mine text := 'tenant = $2' || CASE WHEN among IS NULL THEN '' ELSE ' AND document = ANY ($3)' END;
  counted integer;
BEGIN
  IF embedding IS NULL THEN
    RETURN;
  END IF;
  EXECUTE format('SELECT count(*) FROM (SELECT FROM %I WHERE %s LIMIT $4) first', vectors, mine)
    INTO counted USING asked, whose, among, few + 1;
  IF counted <= few THEN
    RETURN QUERY EXECUTE format(
      'WITH mine AS MATERIALIZED (SELECT chunk, vector FROM %I WHERE %s)
       SELECT chunk, %s FROM mine ORDER BY 2, 1 LIMIT $4', vectors, mine, near)
      USING asked, whose, among, most;
  ELSE
    PERFORM set_config('hnsw.ef_search', greatest(effort, most)::text, true);
    PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true);
    -- Sequential scans and sorts would look at every vector.
    PERFORM set_config('enable_sort', 'off', true);
    PERFORM set_config('enable_seqscan', 'off', true);
    RETURN QUERY EXECUTE format(
      'SELECT chunk, %s FROM %I WHERE %s ORDER BY 2 LIMIT $4', near, vectors, mine)
      USING asked, whose, among, most;
    PERFORM set_config('enable_sort', 'on', true);
    PERFORM set_config('enable_seqscan', 'on', true);
  END IF;
END $$;

-- The vectors of chunks.
CREATE FUNCTION vectors_of(embedding integer, numbers bigint[])
RETURNS TABLE (chunk bigint, vector real[]) LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT v.chunk, v.vector::real[] FROM %I v WHERE v.chunk = ANY ($1)',
    format('vectors_%s', embedding)) USING numbers;
END $$;
