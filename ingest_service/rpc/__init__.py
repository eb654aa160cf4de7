"""The gRPC edge: wire to domain and back, and nothing else."""
