"""The edge: an Envoy before the mesh, which has all but its first words from the registry (docs/edge.md)."""
