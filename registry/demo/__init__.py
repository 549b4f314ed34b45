"""`registry demo-cluster`: registries and agents on one machine, one of each killed; all are real programs."""
