"""Live state of ownership in Redis: who owns which camera, who leads, and what is told of it to everyone."""
