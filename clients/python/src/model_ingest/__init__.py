"""Client of the model ingest service."""
