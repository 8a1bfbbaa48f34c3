-- Who took and left which run, and who wrote each event: kept by the database itself, beside what it is told.
CREATE SCHEMA audit;
CREATE TABLE audit.holds (
    number bigint      GENERATED ALWAYS AS IDENTITY,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    run    bigint      NOT NULL,
    fence  bigint      NOT NULL,
    -- Whether it was taken, or left.
    taken  boolean     NOT NULL,
    worker text        NOT NULL
);
CREATE TABLE audit.writes (
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    run    bigint      NOT NULL,
    event  bigint      NOT NULL,
    fence  bigint      NOT NULL,
    worker text        NOT NULL
);
CREATE FUNCTION audit.held() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.holds (run, fence, taken, worker)
    VALUES (new.number, new.fence, new.state = 'RUNNING', coalesce(current_setting('crash.worker', true), ''));
    RETURN NULL;
END $$;
CREATE FUNCTION audit.wrote() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.writes (run, event, fence, worker)
    SELECT new.run, new.number, fence, coalesce(current_setting('crash.worker', true), '')
    FROM orchestrator.runs WHERE number = new.run;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_held AFTER UPDATE ON orchestrator.runs FOR EACH ROW
    WHEN (old.fence <> new.fence OR old.state = 'RUNNING' AND new.state <> 'RUNNING') EXECUTE FUNCTION audit.held();
CREATE TRIGGER audit_wrote AFTER INSERT ON orchestrator.run_events FOR EACH ROW EXECUTE FUNCTION audit.wrote();
CREATE TRIGGER audit_begun AFTER INSERT ON orchestrator.runs FOR EACH ROW
    WHEN (new.state = 'RUNNING') EXECUTE FUNCTION audit.held();
