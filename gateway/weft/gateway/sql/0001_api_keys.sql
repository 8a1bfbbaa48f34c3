-- API keys. The secret itself is never stored: a key cannot be read back, only replaced.
CREATE TABLE api_keys (
    id          text        PRIMARY KEY CHECK (id ~ '^[a-z2-7]{12}$'),
    name        text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    -- SHA-256 of the secret part.
    secret_hash bytea       NOT NULL CHECK (octet_length(secret_hash) = 32),
    scopes      text[]      NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- NULL: never.
    expires_at  timestamptz,
    revoked_at  timestamptz
);
