"""Thin I/O: one outside thing per module, its library's errors translated into `contract.errors`."""
