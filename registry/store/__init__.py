"""What the registry keeps for good, in the database: one file per noun, each write one transaction.

Whoever changes what another may change too says which version he saw.  If it is not the newest any more he is told
`Stale`, and nothing was written.
"""
