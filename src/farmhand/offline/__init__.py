"""Tasks kept while no farm host answers, and the operator's own claude."""
