"""What tests of agents need that is not an agent: local servers which speak what models and others speak."""
