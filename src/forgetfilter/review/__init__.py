"""Look at the rows of a finished run, overrule it, write the final files."""
