"""How fast the app is and what it takes: measured on one machine, printed, never a test. See docs/benchmarks.md."""
