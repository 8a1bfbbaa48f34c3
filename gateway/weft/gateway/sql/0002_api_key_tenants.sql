-- Organisation that whoever holds the key belongs to. Empty: none.
ALTER TABLE api_keys
    ADD COLUMN tenant text NOT NULL DEFAULT '' CHECK (char_length(tenant) <= 200);
