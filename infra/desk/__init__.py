"""The page and the API behind it, served beside the voice."""
