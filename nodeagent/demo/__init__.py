"""The clip and the model that are shipped for the demo and for tests, with their notes.  No code."""
