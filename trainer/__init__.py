"""From answers to a better voice."""
