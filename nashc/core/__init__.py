"""Frozen domain values: loop nests, networks, accelerators, designs. Imports nothing but NumPy."""
