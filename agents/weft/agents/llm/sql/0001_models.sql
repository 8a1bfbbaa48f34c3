-- Sums by account. Money is in billionths of a US dollar. What is set aside for requests that run is in the sums.
CREATE TABLE model_accounts (
  scope text NOT NULL,
  name text NOT NULL,
  period text NOT NULL,
  tokens bigint NOT NULL DEFAULT 0,
  cost bigint NOT NULL DEFAULT 0,
  -- What it may be at most, whatever those who spend know of: of a run that was begun with a budget. NULL: nothing was said.
  token_limit bigint,
  cost_limit bigint,
  -- When something was last set aside.
  update_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (scope, name, period)
);

-- Requests. Until one is settled its tokens and cost are what is set aside for it.
CREATE TABLE model_requests (
  id text PRIMARY KEY,
  begin_time timestamptz NOT NULL DEFAULT now(),
  settle_time timestamptz,
  agent text NOT NULL,
  endpoint text NOT NULL,
  model text NOT NULL,
  input bigint NOT NULL DEFAULT 0,
  cache_read bigint NOT NULL DEFAULT 0,
  cache_write bigint NOT NULL DEFAULT 0,
  output bigint NOT NULL DEFAULT 0,
  tokens bigint NOT NULL,
  cost bigint NOT NULL,
  priced boolean NOT NULL DEFAULT true
);
CREATE INDEX model_requests_begin ON model_requests (begin_time);

CREATE TABLE model_request_accounts (
  request text NOT NULL REFERENCES model_requests ON DELETE CASCADE,
  scope text NOT NULL,
  name text NOT NULL,
  period text NOT NULL,
  PRIMARY KEY (scope, name, period, request)
);
CREATE INDEX model_request_accounts_request ON model_request_accounts (request);

-- Sets aside what a request may cost in all its accounts or in none. Accounts come in one order, so that nobody waits for
-- somebody who waits for him. Gives the tokens that its answer may have, or, granted 0, the number of the account
-- with too little left and its limits: the narrower ones of those given and its own. An id that is there is set aside
-- already, by somebody whose connection broke before he heard of it, and gives the same again: nothing is counted twice.
CREATE FUNCTION set_aside_for_model(
  id_ text, agent_ text, endpoint_ text, model_ text,
  scopes text[], names text[], periods text[], token_limits bigint[], cost_limits bigint[],
  prompt bigint, prompt_cost bigint, wanted bigint, output_price bigint, fewest bigint,
  priced_ boolean, OUT granted bigint, OUT account integer, OUT token_limit bigint, OUT cost_limit bigint
) LANGUAGE plpgsql AS $$
DECLARE
  held record;
BEGIN
  granted := wanted;
  FOR place IN 1 .. cardinality(scopes) LOOP
    INSERT INTO model_accounts (scope, name, period)
      VALUES (scopes[place], names[place], periods[place]) ON CONFLICT DO NOTHING;
    SELECT a.tokens, a.cost, a.token_limit, a.cost_limit INTO held FROM model_accounts a
      WHERE a.scope = scopes[place] AND a.name = names[place] AND a.period = periods[place]
      FOR UPDATE;
    token_limit := least(token_limits[place], held.token_limit);
    cost_limit := least(cost_limits[place], held.cost_limit);
    IF token_limit IS NOT NULL THEN
      granted := least(granted, token_limit - held.tokens - prompt);
    END IF;
    IF cost_limit IS NOT NULL THEN
      IF NOT priced_ OR cost_limit - held.cost - prompt_cost < 0 THEN
        granted := 0;
      ELSIF output_price > 0 THEN
        granted := least(granted, (cost_limit - held.cost - prompt_cost) / output_price);
      END IF;
    END IF;
    IF granted < least(fewest, wanted) THEN
      account := place;
      EXIT;
    END IF;
  END LOOP;
  INSERT INTO model_requests (id, agent, endpoint, model, tokens, cost)
    SELECT id_, agent_, endpoint_, model_, prompt + granted, prompt_cost + granted * output_price
    WHERE account IS NULL ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    -- With the accounts locked, whoever came first with this id is done.
    granted := coalesce((SELECT q.tokens - prompt FROM model_requests q WHERE q.id = id_), 0);
    RETURN;
  END IF;
  INSERT INTO model_request_accounts (request, scope, name, period)
    SELECT id_, u.scope, u.name, u.period FROM unnest(scopes, names, periods) AS u (scope, name, period);
  UPDATE model_accounts a
    SET tokens = a.tokens + prompt + granted, cost = a.cost + prompt_cost + granted * output_price, update_time = now()
    FROM unnest(scopes, names, periods) AS u (scope, name, period)
    WHERE a.scope = u.scope AND a.name = u.name AND a.period = u.period;
END $$;

-- Says what a request did cost; whether it had not been said before.
CREATE FUNCTION settle_model_request(
  request_ text, input_ bigint, cache_read_ bigint, cache_write_ bigint, output_ bigint, cost_ bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  aside record;
  used bigint := input_ + cache_read_ + cache_write_ + output_;
BEGIN
  -- Accounts first, in the same order as where it is set aside.
  PERFORM 1 FROM model_accounts a JOIN model_request_accounts r
    ON a.scope = r.scope AND a.name = r.name AND a.period = r.period
    WHERE r.request = request_ ORDER BY a.scope, a.name, a.period FOR UPDATE OF a;
  SELECT tokens, cost INTO aside FROM model_requests
    WHERE id = request_ AND settle_time IS NULL FOR UPDATE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  UPDATE model_requests SET settle_time = now(), input = input_, cache_read = cache_read_,
    cache_write = cache_write_, output = output_, tokens = used, cost = coalesce(cost_, 0),
    priced = cost_ IS NOT NULL WHERE id = request_;
  UPDATE model_accounts a
    SET tokens = a.tokens + used - aside.tokens, cost = a.cost + coalesce(cost_, 0) - aside.cost
    FROM model_request_accounts r
    WHERE r.request = request_ AND a.scope = r.scope AND a.name = r.name AND a.period = r.period;
  RETURN true;
END $$;
