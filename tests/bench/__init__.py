"""Benchmarks: one file a subject, run by `python -m tests.bench NAME...`; see `harness` for what a subject offers."""
