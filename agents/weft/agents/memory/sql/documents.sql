-- name: lock_document
-- Lets one change of document $2 of tenant $1 at a time through, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended(format('weft.memory %s %s', length($1), $1 || $2), 0));

-- name: find_documents
-- Numbers and digests of those of the documents $2 that there are.
SELECT id, number, digest FROM documents WHERE tenant = $1 AND id = ANY ($2::text[]);

-- name: put_documents
-- Adds or replaces documents of tenant $1; their headings as JSON.
INSERT INTO documents (tenant, id, title, headings, text, form, language, source, metadata, digest)
SELECT $1, id, title, ARRAY(SELECT jsonb_array_elements_text(headings::jsonb)), text, form, language::regconfig, source,
  metadata::jsonb, digest
FROM unnest(
  $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bytea[]
) AS given (id, title, headings, text, form, language, source, metadata, digest)
ON CONFLICT (tenant, id) DO UPDATE SET
  title = excluded.title, headings = excluded.headings, text = excluded.text, form = excluded.form,
  language = excluded.language, source = excluded.source, metadata = excluded.metadata, digest = excluded.digest,
  update_time = now()
RETURNING id, number;

-- name: chunk_digests
-- The chunks of documents, as they are before a change.
SELECT document, number, digest FROM chunks WHERE document = ANY ($1::bigint[]) ORDER BY document, position;

-- name: delete_chunks
-- Deletes chunks; their vectors go with them.
DELETE FROM chunks WHERE number = ANY ($1::bigint[]);

-- name: move_chunks
-- Says where chunks stand now that the text around them has changed.
UPDATE chunks SET position = moved.position, place_begin = moved.place_begin, place_end = moved.place_end
FROM unnest($1::bigint[], $2::integer[], $3::integer[], $4::integer[])
  AS moved (number, position, place_begin, place_end)
WHERE chunks.number = moved.number;

-- name: put_chunks
-- Adds chunks of documents of tenant $1; their headings as JSON.
INSERT INTO chunks (document, tenant, position, place_begin, place_end, title, headings, text, digest, words)
SELECT given.document, $1, given.position, given.place_begin, given.place_end, given.title, under.headings, given.text,
  given.digest,
  setweight(to_tsvector(given.language::regconfig, given.title), 'A')
  || setweight(to_tsvector(given.language::regconfig, array_to_string(under.headings, E'\n')), 'B')
  || to_tsvector(given.language::regconfig, given.text)
FROM unnest(
  $2::bigint[], $3::text[], $4::text[], $5::integer[], $6::integer[], $7::integer[], $8::text[], $9::text[], $10::bytea[]
) AS given (document, language, title, position, place_begin, place_end, headings, text, digest)
CROSS JOIN LATERAL (
  SELECT ARRAY(SELECT jsonb_array_elements_text(given.headings::jsonb)) AS headings
) under
RETURNING document, position, number;

-- name: get_document
-- A document in full.
SELECT d.id, d.title, d.headings, d.text, d.form, d.language::text, d.source, d.metadata::text, d.create_time, d.update_time,
  (SELECT count(*) FROM chunks c WHERE c.document = d.number) AS chunks
FROM documents d WHERE d.tenant = $1 AND d.id = $2;

-- name: list_documents
-- Documents of tenant $1 by id behind $2, without their text, with metadata $3.
SELECT d.id, d.title, d.headings, '' AS text, d.form, d.language::text, d.source, d.metadata::text, d.create_time, d.update_time,
  (SELECT count(*) FROM chunks c WHERE c.document = d.number) AS chunks
FROM documents d WHERE d.tenant = $1 AND d.id > $2 AND d.metadata @> $3::text::jsonb
ORDER BY d.id LIMIT $4;

-- name: delete_document
-- Deletes a document; chunks and vectors go with it.
DELETE FROM documents WHERE tenant = $1 AND id = $2;

-- name: delete_documents
-- Deletes documents, as delete_document does.
DELETE FROM documents WHERE tenant = $1 AND id = ANY ($2::text[]);

-- name: delete_tenant
-- Deletes all documents of a tenant.
DELETE FROM documents WHERE tenant = $1;
