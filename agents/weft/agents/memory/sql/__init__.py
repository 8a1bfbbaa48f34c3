"""The schema `memory`, and its queries."""
