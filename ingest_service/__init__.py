"""The model ingest service; see docs and the README's map of the house."""
