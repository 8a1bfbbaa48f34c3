"""The schema `langgraph`, and its queries."""
