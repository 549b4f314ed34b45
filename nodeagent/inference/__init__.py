"""Turns clips into detections: model descriptions, the engine, pre- and post-processing, and the worker around them."""
