"""Our readers of GGUF files against llama.cpp itself: what it takes, what it refuses, and what kills it."""
