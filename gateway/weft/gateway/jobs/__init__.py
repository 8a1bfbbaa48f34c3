"""Jobs: calls that are stored before they are accepted, run by any gateway, and end once (AIP-151).

    jobs = Jobs(database, bells)
    job = await jobs.begin(NewJob(owner=Owner(...), agent="echo", method="/...", request=b"...", ...))
    async for change in jobs.watch(job.owner, job.id): ...   # Message as they come, Job at each change of state

Whoever owns a job is its tenant and subject together; to anybody else it does not exist. A door that keeps more
about a job than this (a task's history) has `kind`, `context` and `note` for it. A `Runner` runs what is stored.
"""

from weft.gateway.jobs.bells import Bells
from weft.gateway.jobs.errors import (
    JobKeyReused,
    JobNotFound,
    JobOutcomeUnknown,
    JobRunning,
    JobTooLate,
    TooManyJobs,
)
from weft.gateway.jobs.model import (
    Job,
    Message,
    NewJob,
    Owner,
    Page,
    State,
    Subscriber,
    Webhook,
)
from weft.gateway.jobs.store import Jobs

__all__ = [
    "Bells",
    "Job",
    "JobKeyReused",
    "JobNotFound",
    "JobOutcomeUnknown",
    "JobRunning",
    "JobTooLate",
    "Jobs",
    "Message",
    "NewJob",
    "Owner",
    "Page",
    "State",
    "Subscriber",
    "TooManyJobs",
    "Webhook",
]
