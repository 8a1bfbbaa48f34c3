-- name: all_words
-- Digests of what is stored of each agent.
SELECT agent, digest FROM words WHERE method = '';

-- name: delete_words
-- Forgets the words of agents, to write them anew.
DELETE FROM words WHERE agent = ANY ($1::text[]);

-- name: put_words
-- Stores words, those of names heaviest, then tags, descriptions and examples.
INSERT INTO words (agent, method, digest, vector)
SELECT
  agent, method, digest,
  setweight(to_tsvector('english', names), 'A') || setweight(to_tsvector('english', tags), 'B')
  || setweight(to_tsvector('english', descriptions), 'C') || setweight(to_tsvector('english', examples), 'D')
FROM
  unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
  AS given (agent, method, digest, names, tags, descriptions, examples)
ON CONFLICT (agent, method) DO UPDATE SET digest = excluded.digest, vector = excluded.vector;

-- name: find_words
-- Whose words have any of $2 and none that $3 forbids, with their rank and whether they meet all of $1.
SELECT agent, method, ts_rank(vector, hinted, 1 | 32) AS rank, vector @@ wanted AS whole
FROM
  words,
  websearch_to_tsquery('english', $1) AS wanted,
  CAST(regexp_replace(websearch_to_tsquery('english', $2)::text, '&|<(-|\d+)>', '|', 'g') AS tsquery) AS hinted,
  websearch_to_tsquery('english', $3) AS forbidden
WHERE vector @@ hinted AND (numnode(forbidden) = 0 OR vector @@ forbidden);

-- name: count_words
-- How many words a text has that can be looked for.
SELECT numnode(websearch_to_tsquery('english', $1));
