ALTER TABLE runs
    -- weft.v1.Budget: what it may spend on models, as it was begun with. NULL: nothing was said.
    ADD COLUMN budget bytea,
    -- Id of the run that pays: of one that is a step of another, what the other one is. Empty: it does itself.
    ADD COLUMN payer text NOT NULL DEFAULT '';
