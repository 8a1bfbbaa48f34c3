-- Circuit breakers that an operator holds open or closed.
CREATE TABLE breaker_holds (
    agent   text        NOT NULL,
    -- "/package.Service/Method".
    method  text        NOT NULL,
    state   text        NOT NULL CHECK (state IN ('open', 'closed')),
    -- Subject of whoever holds it.
    held_by text        NOT NULL,
    held_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agent, method)
);
