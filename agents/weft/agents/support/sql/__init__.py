"""Schema and named queries of the support fleet."""
