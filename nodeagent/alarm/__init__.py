"""Alarms: from the judge's message to a row, a replay, a snapshot and a push."""
