"""Machines, not people: settings, files, processes, queues and the voice engine."""
