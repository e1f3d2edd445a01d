"""Self-contained HTML pages: a design, two designs side by side, the Pareto set of a search or a conversion."""
