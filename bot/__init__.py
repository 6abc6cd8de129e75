"""Where people talk to the twin. No SQL, no vectors, no training, never torch."""
