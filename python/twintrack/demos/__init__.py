"""The demonstrations: nodules with four readers, and the paper from end to end on phantoms."""
