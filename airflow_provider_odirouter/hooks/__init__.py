"""Connection and HTTP. Only this layer talks to the API, and it turns transport errors into ours."""
