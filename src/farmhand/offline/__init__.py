"""Tasks that wait while no farm host answers, and the fallback to the operator's own claude."""
