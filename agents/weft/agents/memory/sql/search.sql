-- name: allowed_documents
-- Documents of tenant $1 with metadata $2.
SELECT array_agg(number) FROM documents WHERE tenant = $1 AND metadata @> $2::text::jsonb;

-- name: search
-- Chunks of tenant $1 by words and by meaning, fused by reciprocal rank (Cormack et al. 2009): each list gives weight / (k +
-- rank). $2: documents they are of, null for all. $3, $4: the question and its language. $5, $6: the embedding, null for
-- none, and the question's vector. $7: candidates of each list; $8: results. $9, $10, $11: weights of words and of meaning, k.
-- $12: chunks that are ranked by their words, at most; $13: vectors that are compared one by one; $14: effort in the index.
-- $15, $16: metadata of documents that are preferred, null for none, and how much; $17: least similarity in meaning. The score
-- is the rank by words where there is no embedding.
--
-- Ranking every chunk that holds some common word would take long, and change little: chunks are looked for by the rarest
-- words, as many as are in $12 chunks by what ANALYZE found, and by the rarest one in any case. All words count in the rank,
-- each by its rarity (inverse document frequency) and by where it stands; a chunk that holds more of them counts more.
-- Chunks of preferred documents are ranked without any word, too.
WITH total AS MATERIALIZED (
  SELECT chunks_of($1) AS chunks, (SELECT reltuples FROM pg_class WHERE oid = 'chunks'::regclass) AS of_all
),
parsed AS MATERIALIZED (
  SELECT lexeme FROM unnest(to_tsvector($4::text::regconfig, $3::text)) WHERE $9::float8 > 0
),
asked AS MATERIALIZED (
  SELECT lexeme, coalesce(frequent.chunks, 1) AS expected,
    ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery AS word
  FROM parsed LEFT JOIN frequent_words(
    -- Of so few all are ranked.
    CASE WHEN (SELECT of_all FROM total) > $12::integer THEN (SELECT array_agg(lexeme) FROM parsed) END
  ) frequent USING (lexeme)
),
rarest AS MATERIALIZED (
  SELECT lexeme, word, expected,
    sum(expected) OVER behind <= $12::integer OR row_number() OVER behind = 1 AS is_sought
  FROM asked WINDOW behind AS (ORDER BY expected, lexeme)
),
held AS MATERIALIZED (
  SELECT number, words FROM chunks
  WHERE tenant = $1 AND ($2::bigint[] IS NULL OR document = ANY ($2)) AND words @@ (
    SELECT string_agg(word::text, ' | ')::tsquery FROM rarest WHERE is_sought
  )
  LIMIT $12::integer * 2
),
matches AS MATERIALIZED (
  SELECT held.number, asked.lexeme, ts_rank('{0.4, 0.4, 0.7, 1.0}', held.words, asked.word) AS rank
  FROM held JOIN asked ON held.words @@ asked.word
),
counted AS (
  SELECT lexeme, count(*) AS found FROM matches GROUP BY lexeme
),
weights AS MATERIALIZED (
  SELECT lexeme, ln(1 + total.chunks / (1 + CASE
    WHEN is_sought THEN coalesce(found, 0) ELSE greatest(coalesce(found, 0), expected) END)) AS rarity
  FROM rarest CROSS JOIN total LEFT JOIN counted USING (lexeme)
),
ranked AS (
  SELECT number, sum(rarity * rank) * (0.5 + sum(rarity) / (SELECT sum(rarity) FROM weights)) AS rank
  FROM matches JOIN weights USING (lexeme) GROUP BY number
),
preferred AS MATERIALIZED (
  SELECT c.number FROM documents d JOIN chunks c ON c.document = d.number
  WHERE $15::text IS NOT NULL AND $9::float8 > 0 AND d.tenant = $1 AND d.metadata @> $15::text::jsonb
    AND ($2::bigint[] IS NULL OR d.number = ANY ($2))
  LIMIT $12::integer * 2
),
by_words AS (
  SELECT number, rank, row_number() OVER (ORDER BY rank DESC, number) AS place FROM (
    SELECT number,
      CASE WHEN p.number IS NULL THEN r.rank ELSE (coalesce(r.rank, 0) + 1) * $16::float8 END AS rank
    FROM ranked r FULL JOIN preferred p USING (number) ORDER BY rank DESC, number LIMIT $7::integer
  ) best
),
by_meaning AS (
  SELECT near.chunk AS number, near.distance, row_number() OVER (ORDER BY near.distance, near.chunk) AS place
  FROM nearest($5::integer, $1, $2, $6::text, $7::integer, $13::integer, $14::integer) near
  WHERE $10::float8 > 0 AND near.distance <= 1 - $17::float8
),
fused AS MATERIALIZED (
  SELECT number, w.place AS word_place, m.place AS meaning_place, 1 - m.distance AS similarity,
    CASE WHEN $5::integer IS NULL THEN w.rank
      ELSE (coalesce($9::float8 / ($11::float8 + w.place), 0) + coalesce($10::float8 / ($11::float8 + m.place), 0))
        * CASE WHEN number IN (SELECT p.number FROM preferred p) THEN $16::float8 ELSE 1 END
    END AS score
  FROM by_words w FULL JOIN by_meaning m USING (number)
  ORDER BY score DESC, number LIMIT $8::integer
)
SELECT c.number, d.id, d.title, c.headings, c.place_begin, c.place_end, c.text, d.source, d.metadata::text,
  f.score, f.similarity, f.word_place, f.meaning_place
FROM fused f
CROSS JOIN LATERAL (SELECT * FROM chunks WHERE chunks.number = f.number OFFSET 0) c
CROSS JOIN LATERAL (SELECT * FROM documents WHERE documents.number = c.document OFFSET 0) d
ORDER BY f.score DESC, c.number;

-- name: vectors_of
-- The vectors of chunks.
SELECT chunk, vector FROM vectors_of($1, $2);
