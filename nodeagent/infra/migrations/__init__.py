"""Steps of the database's schema, oldest first; `infra.database.migrate` runs them.

Each step only makes what is missing: MySQL commits after every statement, so a killed upgrade is run again from its
start.  Tables take `if_not_exists`; indexes do not (MySQL has no CREATE INDEX IF NOT EXISTS): ask the inspector.
"""
