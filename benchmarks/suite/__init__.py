"""`make bench`: every figure in one run, as ratios taken in alternation (docs/performance.md)."""
