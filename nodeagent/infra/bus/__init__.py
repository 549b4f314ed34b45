"""The bus between the stages: one narrow port (`port`), one description of its queues (`topology`), two adapters."""
