"""Logs, and later metrics, traces and the event-loop monitor. Nothing here is needed for correctness."""
