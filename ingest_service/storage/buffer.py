"""What bytes come in."""

Buffer = bytes | memoryview
