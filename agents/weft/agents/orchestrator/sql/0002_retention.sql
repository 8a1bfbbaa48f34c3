-- Runs by when they ended: those that are kept for long enough are deleted.
CREATE INDEX runs_ended ON runs (end_time) WHERE end_time IS NOT NULL;
