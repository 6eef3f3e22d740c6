"""Requests and answers, as each kind of client writes and reads them."""
