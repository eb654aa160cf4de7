"""The words every room speaks: states, reasons, the error tree, records, names.

The lowest room: it imports nothing of the house, holds no I/O and no logic beyond what a word means.
design.md puts states and errors into `ingests/`; they stand here because the rooms below it (database,
storage, forwarding) raise the same errors and store the same states, and imports only point down.
"""
