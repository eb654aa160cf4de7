"""The handler that made this service necessary, kept as what it is measured against."""
