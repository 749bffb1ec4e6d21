"""Triggers: they poll in the triggerer, fire one event, and cancel a request for which no task waits any more."""
