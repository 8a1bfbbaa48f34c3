-- A run that is stored by an orchestrator with room for it is held by that from the first: nobody has to be woken.
DROP TRIGGER run_made ON runs;
CREATE TRIGGER run_made AFTER INSERT ON runs FOR EACH ROW WHEN (new.state = 'QUEUED') EXECUTE FUNCTION run_told();
