"""The domain: how an ingest is created, its files uploaded, verified and published.

Knows no gRPC, SQL or HTTP; clock and ids are passed in.
"""
