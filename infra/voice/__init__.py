"""The voice: a base model, plus at most one adapter, being served."""
