"""The command line: one small file per command; what is shown is decided in pure files, apart from the drawing."""
