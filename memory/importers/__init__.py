"""One module for each file format that a creator's history comes in."""
