"""What crosses a process or machine boundary.  Pure: numpy and pydantic only, no clock, no I/O, no logging."""
