"""Property tests look for wrong answers, not for slow ones: on a shared machine any single example may be slow."""

from hypothesis import settings

settings.register_profile("tree", deadline=None)
settings.load_profile("tree")
