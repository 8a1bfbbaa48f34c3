-- name: lock_articles
-- Lets one import at a time through, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('weft.support.articles'));

-- name: known_articles
-- What the articles with these ids are, as they were last imported.
SELECT article_id, digest, anchors, section_digests FROM articles WHERE article_id = ANY ($1::text[]);

-- name: put_article
-- Adds or replaces an article.
INSERT INTO articles (article_id, title, markdown, intents, anchors, section_digests, digest, update_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, now())
ON CONFLICT (article_id) DO UPDATE SET
  title = excluded.title, markdown = excluded.markdown, intents = excluded.intents, anchors = excluded.anchors,
  section_digests = excluded.section_digests, digest = excluded.digest, update_time = excluded.update_time;

-- name: count_passages
-- Passages the knowledge base holds.
SELECT coalesce(sum(cardinality(anchors)), 0)::bigint FROM articles;

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
