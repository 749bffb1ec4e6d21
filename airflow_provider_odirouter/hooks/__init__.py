"""Connection and HTTP. The only room that talks to the API and that turns transport errors into ours."""
