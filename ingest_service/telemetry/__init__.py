"""Logs, metrics and the event-loop monitor. Nothing here is needed for correctness."""
