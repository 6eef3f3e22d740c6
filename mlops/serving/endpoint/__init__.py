"""The endpoint as an ASGI application: who is let in, which route answers, and how."""
