"""Numbers to numbers: tests, intervals, searches and laws. No file is read, nothing is started."""
