"""What the twin knows: the only owner of personal data."""
