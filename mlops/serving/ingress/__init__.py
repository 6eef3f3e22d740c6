"""The way in: addresses, ports and HAProxy, and what replicas must know."""
