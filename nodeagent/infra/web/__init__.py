"""What the clip endpoint and the registry share as web servers.

`server` and `problems` need uvicorn and FastAPI, which no other process should load.
"""
