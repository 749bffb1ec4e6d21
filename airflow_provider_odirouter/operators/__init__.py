"""The operators. Their modules stay light when a Dag is parsed: HTTP, pictures and the trigger load when needed."""
