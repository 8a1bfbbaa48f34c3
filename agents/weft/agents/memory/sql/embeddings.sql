-- name: lock_embeddings
-- Lets one change of the list of embeddings at a time through, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('weft.memory.embeddings'));

-- name: list_embeddings
-- Every version of the embedding, the oldest first.
SELECT number, name, dimensions, ready FROM embeddings ORDER BY number;

-- name: put_embedding
-- Adds a version, which is ready at once where there is nothing to embed.
INSERT INTO embeddings (name, dimensions, ready)
VALUES ($1, $2, NOT EXISTS (SELECT FROM chunks)) RETURNING number;

-- name: make_vectors
-- Makes the table of its vectors.
SELECT make_vectors($1, $2);

-- name: mark_ready
-- From now on a version is searched by.
UPDATE embeddings SET ready = true WHERE number = $1;

-- name: delete_embedding
-- Takes a version off the list.
DELETE FROM embeddings WHERE number = $1;

-- name: drop_vectors
-- Deletes its vectors.
SELECT drop_vectors($1);

-- name: put_vectors
-- Stores vectors of chunks.
SELECT put_vectors($1, $2, $3);

-- name: without_vector
-- Chunks after number $2 that have no vector of a version.
SELECT number, title, headings, text FROM without_vector($1, $2, $3);

-- name: vectors_in
-- How many chunks of document $2 of tenant $1 have a vector of version $3.
SELECT vectors_in($3, number) FROM documents WHERE tenant = $1 AND id = $2;
