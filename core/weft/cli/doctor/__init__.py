"""What `weft doctor` looks at: one module for each kind of thing, each of them a list of findings.

model      what a finding is
machine    this process and its machine: files, disk, proxies, the bootstrap of gRPC clients
parts      registry, broker, gateway, agents
queues     what waits, what is dead, what is lost
postgres   version, connections, migrations
redis      version, what it keeps and forgets
clocks     whether all of them tell the same time
"""

from weft.cli.doctor.examination import examine
from weft.cli.doctor.model import Finding, State

__all__ = ["Finding", "State", "examine"]
