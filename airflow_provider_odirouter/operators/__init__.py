"""The operators. Light, since Dags are parsed with them: HTTP, pictures and triggers are imported when a task runs."""
