"""Where an engine runs. One module a backend; see `serving.backends.BACKENDS`."""
