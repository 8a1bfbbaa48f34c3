-- name: lock_articles
-- Lets one import at a time through, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('weft.support.articles'));

-- name: article_digests
-- Digests of the articles with these ids.
SELECT article_id, digest FROM articles WHERE article_id = ANY ($1::text[]);

-- name: put_article
-- Adds or replaces an article.
INSERT INTO articles (article_id, title, markdown, intents, digest, update_time)
VALUES ($1, $2, $3, $4, $5, now())
ON CONFLICT (article_id) DO UPDATE SET
  title = excluded.title, markdown = excluded.markdown, intents = excluded.intents,
  digest = excluded.digest, update_time = excluded.update_time;

-- name: article_passages
-- Passages of an article.
SELECT passage_id, heading, text FROM passages WHERE article_id = $1 ORDER BY position;

-- name: delete_passages
-- Makes room for the passages of a replaced article.
DELETE FROM passages WHERE article_id = $1;

-- name: put_passages
-- Adds the passages of an article, in order.
INSERT INTO passages (passage_id, article_id, position, title, heading, text)
SELECT p.passage_id, $1, p.position, $2, p.heading, p.text
FROM unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS p (passage_id, heading, text, position);

-- name: count_passages
-- Passages the knowledge base holds.
SELECT count(*) FROM passages;

-- name: get_article
-- An article in full.
SELECT article_id, title, markdown, intents, update_time FROM articles WHERE article_id = $1;

-- name: list_articles
-- Articles by title behind ($1, $2), without their text.
SELECT article_id, title, intents, update_time FROM articles
WHERE (title, article_id) > ($1, $2) ORDER BY title, article_id LIMIT $3;

-- name: shipped_digests
-- Digests of the shipped articles as they were last imported.
SELECT article_id, digest FROM shipped_articles;

-- name: put_shipped
-- Remembers which shipped articles were imported.
INSERT INTO shipped_articles (article_id, digest)
SELECT * FROM unnest($1::text[], $2::bytea[])
ON CONFLICT (article_id) DO UPDATE SET digest = excluded.digest;

-- name: search_passages
-- Passages that hold any word of a question ($1) or stand in an article about the intent $2, best first.
-- Each word counts by how rare it is (inverse document frequency) and by where it stands (title 1, heading 0.7,
-- text 0.4; ts_rank adds a little for repetition). A passage that holds more of the words counts more.
WITH words AS (
  SELECT lexeme, ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery AS word
  FROM unnest(to_tsvector('english', $1))
),
total AS (SELECT count(*)::float8 AS passages FROM passages),
frequencies AS (
  SELECT w.lexeme, w.word, ln(1 + t.passages / (1 + count(p.passage_id))) AS rarity
  FROM words w CROSS JOIN total t LEFT JOIN passages p ON p.document @@ w.word
  GROUP BY w.lexeme, w.word, t.passages
),
hits AS (
  SELECT
    p.passage_id,
    sum(f.rarity * ts_rank('{0.4, 0.4, 0.7, 1.0}', p.document, f.word)) AS rank,
    sum(f.rarity) / (SELECT sum(rarity) FROM frequencies) AS coverage
  FROM frequencies f JOIN passages p ON p.document @@ f.word
  GROUP BY p.passage_id
),
meant AS (
  SELECT p.passage_id FROM passages p JOIN articles a USING (article_id)
  WHERE $2 <> '' AND $2 = ANY (a.intents)
)
SELECT
  p.passage_id, p.article_id, p.title, p.heading, p.text,
  coalesce(h.rank * (0.5 + h.coverage), 0) * CASE WHEN m.passage_id IS NULL THEN 1.0 ELSE 1.5 END
  + CASE WHEN m.passage_id IS NULL THEN 0.0 ELSE 1.5 END AS score
FROM hits h FULL JOIN meant m USING (passage_id) JOIN passages p USING (passage_id)
ORDER BY score DESC, p.article_id, p.position LIMIT $3;
