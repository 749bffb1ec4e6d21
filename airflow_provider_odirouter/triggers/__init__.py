"""Looking and sleeping in the triggerer, one event, and the cancel of a request that nobody waits for any more."""
