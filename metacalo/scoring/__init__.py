"""How likely a model finds each shower, with tables and a report."""
