"""Words in, words out. No policy lives here, and heavy imports stay inside the commands."""
