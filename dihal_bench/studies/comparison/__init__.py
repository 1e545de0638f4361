"""All interfaces under one budget: which runs that takes, and the tables that they give."""
