-- Jobs as A2A shows them: the state of a task. protocol.py says the same to those that were just made.
CREATE FUNCTION a2a_state(job jobs) RETURNS text IMMUTABLE LANGUAGE sql AS $$
    SELECT 'TASK_STATE_' || CASE job.state
        WHEN 'QUEUED' THEN CASE WHEN job.start_time IS NULL THEN 'SUBMITTED' ELSE 'WORKING' END
        WHEN 'RUNNING' THEN 'WORKING'
        WHEN 'WAITING' THEN job.waits_for
        WHEN 'SUCCEEDED' THEN 'COMPLETED'
        WHEN 'CANCELLED' THEN 'CANCELED'
        -- A google.rpc.Status begins with its code: tag 8, and a number below 128.
        ELSE CASE get_byte(job.status, 1)
            WHEN 1 THEN 'CANCELED'
            WHEN 3 THEN 'REJECTED' WHEN 7 THEN 'REJECTED' WHEN 11 THEN 'REJECTED' WHEN 16 THEN 'REJECTED'
            ELSE 'FAILED'
        END
    END
$$;
